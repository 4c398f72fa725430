"""What doctor says of hosts that are not this one: /proc and /sys made for the purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.commands import doctor
from exporter.commands.doctor import Line
from exporter.kernel.features import Kernel
from exporter.spec import ATTACH_KINDS

RELEASE = "6.1.0-56-amd64"
Look = Callable[[str], Line]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """The line of one subject, on a host that has enough memory and nothing else to read."""
    (tmp_path / "meminfo").write_text("MemTotal: 900000 kB\nMemAvailable:  800000 kB\n")
    kernel = Kernel(proc=tmp_path, sysfs=tmp_path, modules=tmp_path / "modules", release=RELEASE, machine="x86_64")

    def of(subject: str) -> Line:
        return next(line for line in doctor.read(kernel, tmp_path) if line.subject == subject)

    return of


def test_every_attach_kind_is_tried() -> None:
    assert set(doctor.TARGETS) == set(ATTACH_KINDS)


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_without_types_and_headers_no_program_compiles(look: Look) -> None:
    line = look("kernel types (BTF)")
    assert line.level == "problem"
    assert line.found.endswith("kernel/btf/vmlinux, and no headers")
    assert f"apt-get install linux-headers-{RELEASE}" in line.advice


@pytest.mark.parametrize("tree", ["source", "build"])
def test_headers_do_where_there_are_no_types(look: Look, tmp_path: Path, tree: str) -> None:
    write(tmp_path, f"modules/{RELEASE}/{tree}/include/linux/kconfig.h", "")
    line = look("kernel types (BTF)")
    assert line.level == "note"
    assert line.found.endswith(f"but the headers in {tmp_path}/modules/{RELEASE}/{tree}")
    assert "fentry, fexit, tp_btf" in line.advice


def test_hidden_symbols_are_told_with_what_shows_them(look: Look, tmp_path: Path) -> None:
    assert look("kernel symbols").level == "note"  # no kallsyms at all
    write(tmp_path, "sys/kernel/kptr_restrict", "2\n")
    write(tmp_path, "kallsyms", "0000000000000000 T _text\n0000000000000000 T tcp_sendmsg\n")
    hidden = look("kernel symbols")
    assert (hidden.level, hidden.found) == ("note", "addresses are hidden, kernel.kptr_restrict is 2")
    assert "kernel.kptr_restrict=1" in hidden.advice
    write(tmp_path, "kallsyms", "ffffffff81000000 T _text\n")
    assert look("kernel symbols") == Line("kernel symbols", "ok", "addresses can be read, kernel.kptr_restrict is 2")


def test_little_memory_is_told_before_a_compiler_is_killed(look: Look, tmp_path: Path) -> None:
    assert look("memory to compile") == Line("memory to compile", "ok", "781 MiB available")
    write(tmp_path, "meminfo", "MemAvailable:  100000 kB\n")
    line = look("memory to compile")
    assert (line.level, line.found) == ("note", "97 MiB available")
    assert "one by one" in line.advice


@pytest.mark.parametrize(
    ("source", "level"), [("tsc", "ok"), ("kvm-clock", "ok"), ("hpet", "note"), ("acpi_pm", "note")]
)
def test_slow_clock_is_told(look: Look, tmp_path: Path, source: str, level: str) -> None:
    write(tmp_path, "devices/system/clocksource/clocksource0/current_clocksource", source + "\n")
    line = look("clock")
    assert (line.found, line.level) == (source, level)


@pytest.mark.parametrize(
    ("setting", "value", "level", "advice"),
    [
        ("kernel.perf_event_paranoid", "2", "ok", ""),
        ("kernel.perf_event_paranoid", "3", "note", "CAP_SYS_ADMIN"),  # Debian's
        ("kernel.unprivileged_bpf_disabled", "2", "ok", ""),
        ("kernel.unprivileged_bpf_disabled", "0", "note", "sysctl kernel.unprivileged_bpf_disabled=2"),
        ("net.core.bpf_jit_enable", "1", "ok", ""),
        ("net.core.bpf_jit_enable", "0", "note", "sysctl net.core.bpf_jit_enable=1"),
    ],
)
def test_settings_that_matter(look: Look, tmp_path: Path, setting: str, value: str, level: str, advice: str) -> None:
    assert look(setting).found == "this kernel has no such setting"
    write(tmp_path, f"sys/{setting.replace('.', '/')}", value + "\n")
    line = look(setting)
    assert (line.level, line.found) == (level, value)
    assert advice in line.advice
    assert bool(line.advice) == bool(advice)


@pytest.mark.parametrize(("mode", "level"), [("none", "ok"), ("integrity", "ok"), ("confidentiality", "problem")])
def test_only_confidentiality_keeps_programs_from_loading(look: Look, tmp_path: Path, mode: str, level: str) -> None:
    shown = " ".join(f"[{word}]" if word == mode else word for word in ("none", "integrity", "confidentiality"))
    write(tmp_path, "kernel/security/lockdown", shown + "\n")
    line = look("lockdown")
    assert (line.found, line.level) == (mode, level)


def test_tracefs_that_is_not_mounted_is_told_with_the_command(look: Look, tmp_path: Path) -> None:
    assert "mount -t tracefs tracefs /sys/kernel/tracing" in look("tracefs").advice
    (tmp_path / "kernel/tracing/events").mkdir(parents=True)
    assert look("tracefs") == Line("tracefs", "ok", f"{tmp_path}/kernel/tracing")


V1 = "33 31 0:30 / /c/pids rw - cgroup cgroup rw,pids\n34 31 0:31 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "35 31 0:32 / /c/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mounts", "level", "found", "advice"),
    [
        (V2, "ok", "version 2 at /c/unified", ""),
        (V1 + V2, "note", "version 2 at /c/unified, controllers in version 1", "{cgroup: pids}"),
        (V1, "note", "version 1 alone (cpu, cpuacct, pids)", "{cgroup: pids}"),
        ("", "note", "not mounted", "mount cgroup2"),
    ],
)
def test_versions_of_cgroups(look: Look, tmp_path: Path, mounts: str, level: str, found: str, advice: str) -> None:
    write(tmp_path, "self/mountinfo", mounts)
    line = look("cgroups")
    assert (line.level, line.found) == (level, found)
    assert advice in line.advice


def test_names_of_pods_need_their_logs(look: Look, tmp_path: Path) -> None:
    assert look("pods").found == f"no {tmp_path}/var/log/pods: this host is no Kubernetes node"
    write(tmp_path, "var/log/pods", "a file where a directory belongs")
    line = look("pods")
    assert (line.level, line.found) == ("note", f"{tmp_path}/var/log/pods: Not a directory")
    assert "`unknown`" in line.advice
    (tmp_path / "var/log/pods").unlink()
    (tmp_path / "var/log/pods").mkdir()
    assert look("pods") == Line("pods", "ok", f"{tmp_path}/var/log/pods")


def test_every_note_and_problem_says_what_to_do(look: Look, tmp_path: Path) -> None:
    kernel = Kernel(proc=tmp_path, sysfs=tmp_path, modules=tmp_path, release="5.4.0", machine="riscv64")
    lines = list(doctor.read(kernel, tmp_path))
    assert {line.level for line in lines} == {"ok", "note", "problem"}
    assert [line for line in lines if bool(line.advice) != (line.level != "ok")] == []
