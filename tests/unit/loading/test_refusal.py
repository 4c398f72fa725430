"""What an errno of the kernel becomes, where this machine's kernel does not give it."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel import bpf
from exporter.kernel.features import Kernel
from exporter.loading.refusal import LOG_LINES, refused
from exporter.program import Reason


def kernel(root: Path, capabilities: str, release: str = "6.1.0", lockdown: str = "[none] integrity") -> Kernel:
    """A kernel on which this process has the capabilities of a mask as in /proc/self/status."""
    (root / "self").mkdir()
    sets = "".join(f"{name}:\t{capabilities}\n" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    (root / "self/status").write_text(
        f"Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0\n{sets}NoNewPrivs:\t0\nThreads:\t1\n"
    )
    (root / "kernel/security").mkdir(parents=True)
    (root / "kernel/security/lockdown").write_text(lockdown + "\n")
    return Kernel(proc=root, sysfs=root, release=release)


@pytest.fixture
def locked_memory() -> Iterator[None]:
    """RLIMIT_MEMLOCK as Debian has it for users."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


ALL = "000001ffffffffff"
DENIED = PermissionError(errno.EPERM, "BPF_PROG_LOAD f: Operation not permitted")


def test_refusal_names_the_capabilities_that_are_missing(tmp_path: Path) -> None:
    without_perfmon_and_admin = f"{0x1FFFFFFFFFF & ~(1 << 38) & ~(1 << 21):016x}"
    found = refused("load f", DENIED, kernel(tmp_path, without_perfmon_and_admin))
    assert found.reason is Reason.PERMISSION
    assert found.text == (
        "load f: BPF_PROG_LOAD f: Operation not permitted (run as root, or give CAP_PERFMON, CAP_SYS_ADMIN)"
    )


def test_refusal_names_the_lockdown(tmp_path: Path) -> None:
    found = refused("load f", DENIED, kernel(tmp_path, ALL, lockdown="none [confidentiality]"))
    assert found.reason is Reason.PERMISSION
    assert "(the kernel is locked down: confidentiality, see kernel_lockdown(7))" in found.text


def test_refusal_names_the_locked_memory_limit_where_maps_count_in_it(tmp_path: Path, locked_memory: None) -> None:
    old = refused("create map m", DENIED, kernel(tmp_path, ALL, release="5.10.0-32-amd64"))
    assert old.reason is Reason.PERMISSION
    assert "(RLIMIT_MEMLOCK is 65536 bytes: LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited)" in old.text


def test_locked_memory_is_no_cause_since_5_11(tmp_path: Path, locked_memory: None) -> None:
    assert "MEMLOCK" not in refused("create map m", DENIED, kernel(tmp_path, ALL, release="5.11.0")).text


def test_refusal_with_every_right_is_the_kernels_own(tmp_path: Path) -> None:
    found = refused("load f", DENIED, kernel(tmp_path, ALL))
    assert found.reason is Reason.UNSUPPORTED
    assert "this kernel refuses it even with CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN" in found.text


def test_error_number_without_a_name_in_user_space_is_spelled_out(tmp_path: Path) -> None:
    error = OSError(bpf.ENOTSUPP, f"BPF_RAW_TRACEPOINT_OPEN: {bpf.strerror(bpf.ENOTSUPP)}")
    found = refused("attach fentry/f", error, Kernel(proc=tmp_path, sysfs=tmp_path))
    assert found.reason is Reason.UNSUPPORTED
    assert found.text.endswith("not supported by this kernel (ENOTSUPP)")


def test_long_verifier_log_is_shown_from_its_end(tmp_path: Path) -> None:
    log = (
        "\n".join(f"{i}: (bf) r1 = r6" for i in range(100)) + "\nR1 invalid mem access 'scalar'\nprocessed 100 insns\n"
    )
    found = refused("load f", bpf.VerifierError(errno.EACCES, "x", log), Kernel(proc=tmp_path, sysfs=tmp_path))
    assert found.reason is Reason.VERIFIER
    first, *rest = found.text.splitlines()
    assert len(rest) == LOG_LINES
    assert rest[-1] == "processed 100 insns"
    assert "inside the arguments of a macro" in first, "the usual cause of this refusal under bcc is named"


def test_function_without_an_address_is_missing(tmp_path: Path) -> None:
    error = bpf.VerifierError(errno.ENOENT, "x", "The address of function tcp_x cannot be found\nprocessed 0 insns\n")
    found = refused("load f for fentry/tcp_x", error, Kernel(proc=tmp_path, sysfs=tmp_path))
    assert found.reason is Reason.MISSING
    assert found.text == "load f for fentry/tcp_x: The address of function tcp_x cannot be found"
