"""The matrix itself: what cannot be had or booted fails with its name, and says what was last seen of it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.matrix import apt, crosscompile, initramfs, kernels, machine

UNREACHABLE = {"Debian": "http://127.0.0.1:9/debian"}  # the discard port: connections are refused


@pytest.fixture(scope="module")
def kernel() -> kernels.Kernel:
    return kernels.get("6.12", kernels.cache_directory())


def test_panic_is_reported_with_the_name_of_the_kernel_and_its_last_words(
    kernel: kernels.Kernel, tmp_path: Path
) -> None:
    with pytest.raises(machine.MachineError) as error:
        machine.run(kernel, "echo about to panic; echo c > /proc/sysrq-trigger; sleep 60", tmp_path, timeout=120)
    said = str(error.value)
    assert said.startswith(f"linux {kernel.release}: the kernel panicked")
    assert "sysrq_handle_crash" in said
    assert "about to panic" in said


def test_job_that_does_not_end_is_killed_and_named(kernel: kernels.Kernel, tmp_path: Path) -> None:
    with pytest.raises(machine.MachineError, match="not done after 30 s") as error:
        machine.run(kernel, "echo still here; sleep 3600", tmp_path, timeout=30)
    assert kernel.release in str(error.value)
    assert "still here" in str(error.value)


def test_exit_code_and_output_of_the_job_come_back(kernel: kernels.Kernel, tmp_path: Path) -> None:
    outcome = machine.run(
        kernel, f"uname -r; cmp {kernel.btf} /sys/kernel/btf/vmlinux && exit 7", tmp_path, timeout=120
    )
    assert outcome.log == f"{kernel.release}\n"
    assert outcome.exit_code == 7, "the BTF out of the package is not what the kernel serves"


def test_series_without_a_kernel_fails_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels.SERIES, "4.4", ("bookworm",))
    with pytest.raises(kernels.KernelError, match=r"^linux 4\.4: no linux-image-4\.4"):
        kernels.get("4.4", tmp_path)


def test_mirror_that_does_not_answer_fails_with_the_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "mirrors", lambda: UNREACHABLE)
    with pytest.raises(kernels.KernelError, match=r"^linux 6\.12: apt-get -q: "):
        kernels.get("6.12", tmp_path)


def test_cached_kernel_is_used_where_the_mirror_does_not_answer_and_says_so(
    kernel: kernels.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / kernel.vmlinuz.parent.name).symlink_to(kernel.vmlinuz.parent)
    monkeypatch.setattr(apt, "mirrors", lambda: UNREACHABLE)
    kept = kernels.get("6.12", tmp_path)
    assert kept.release == kernel.release
    assert "from the cache because the newest could not be had" in str(kept)


def test_what_a_compiler_made_that_nobody_used_for_a_week_goes(tmp_path: Path) -> None:
    of_now = crosscompile.kept(tmp_path)
    for name, days in (("recent", 6), ("old", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "artifact.json").touch()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    os.utime(of_now, (0, 0))
    assert crosscompile.kept(tmp_path) == of_now
    assert {path.name for path in tmp_path.iterdir()} == {of_now.name, "recent"}


def test_initramfs_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    files = [("bin", 0o40755, b""), ("bin/tool", 0o100755, b"odd"), ("init", 0o100755, b"#!/bin/tool\n")]
    subprocess.run(["cpio", "-id", "--quiet"], input=initramfs.cpio(files), cwd=tmp_path, check=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"odd"
    assert (tmp_path / "init").read_bytes() == b"#!/bin/tool\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
