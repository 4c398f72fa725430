"""Globs of attach points -> functions and tracepoints, on a kernel made of files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.kernel.features import Kernel
from exporter.loading.attaching import functions
from exporter.loading.attaching.kinds import AttachPoint, expand
from exporter.loading.refusal import RefusedError
from exporter.program import Reason

SYMBOLS = """\
0 T vfs_read
0 t __pfx_vfs_read
0 T vfs_write
0 t vfs_write.cold
0 t vfs_static
0 t vfs_static
0 T vfs_notrace
0 T vfs_banned
0 D vfs_data
ff10 T __ia32_sys_getpid
ff10 T __x64_sys_getpid
ff20 T __x64_sys_getppid
ff20 T __x64_sys_getppid_alias
0 t vfs_mod\t[mod]
0 t helper\t[mod]
"""
EVENTS = """\
sched:sched_switch
sched:sched_wakeup
syscalls:sys_enter_read
raw_syscalls:sys_enter
ftrace:function
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    tracing, kprobes = tmp_path / "kernel/tracing", tmp_path / "kernel/debug/kprobes"
    (tracing / "events").mkdir(parents=True)
    kprobes.mkdir(parents=True)
    (tmp_path / "kallsyms").write_text(SYMBOLS)
    allowed = [line.split()[2] for line in SYMBOLS.splitlines() if not re.search("notrace| D |x64_sys_getpid", line)]
    (tracing / "available_filter_functions").write_text("".join(f"{name} [mod]\n" for name in allowed))
    (kprobes / "blacklist").write_text("0x0000-0x0010\tvfs_banned\n")
    (tracing / "available_events").write_text(EVENTS)
    return Kernel(proc=tmp_path, sysfs=tmp_path, release="6.1.0", machine="x86_64")


def targets(kernel: Kernel, kind: str, target: str) -> list[str]:
    return [target.target for target in expand(kernel, AttachPoint(kind, target, "f"))]


@pytest.mark.parametrize(
    ("kind", "glob", "found"),
    [
        ("kprobe", "vfs_*", ["mod:vfs_mod", "vfs_read", "vfs_write"]),
        ("kretprobe", "vfs_????", ["vfs_read"]),
        ("fentry", "sys_getp*", ["__x64_sys_getpid", "__x64_sys_getppid"]),
        ("kprobe", "vfs_*.*", ["vfs_write.cold"]),
        ("fexit", "mod:*", ["mod:helper", "mod:vfs_mod"]),
        ("kprobe", "built:vfs_*", ["vfs_read", "vfs_write"]),  # no such module: it is built in
        ("tracepoint", "sched:*", ["sched:sched_switch", "sched:sched_wakeup"]),
        ("tracepoint", "*:*sys_enter*", ["raw_syscalls:sys_enter", "syscalls:sys_enter_read"]),
        ("raw_tracepoint", "*_enter*", ["sys_enter"]),
        ("tp_btf", "sched_*", ["sched_switch", "sched_wakeup"]),
        ("kprobe", "no_glob", ["no_glob"]),
    ],
)
def test_glob_names_what_a_probe_can_be_put_on(kernel: Kernel, kind: str, glob: str, found: list[str]) -> None:
    assert targets(kernel, kind, glob) == found


@pytest.mark.parametrize(
    ("kind", "glob", "said"),
    [
        ("kprobe", "nothing_*", "attach kprobe/nothing_*: no function matches (see available_filter_functions"),
        ("tracepoint", "tcp:*", "attach tracepoint/tcp:*: no tracepoint matches (`perf list tracepoint`"),
    ],
)
def test_glob_without_a_match_is_missing(kernel: Kernel, kind: str, glob: str, said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        expand(kernel, AttachPoint(kind, glob, "f"))
    assert caught.value.reason is Reason.MISSING
    assert caught.value.text.startswith(said)


def test_glob_of_more_than_200_is_refused(kernel: Kernel) -> None:
    (kernel.proc / "kallsyms").write_text("".join(f"0 T many_{number}\n" for number in range(201)))
    (kernel.sysfs / "kernel/tracing/available_filter_functions").unlink()
    with pytest.raises(RefusedError) as caught:
        expand(kernel, AttachPoint("kprobe", "many_*", "f"))
    assert caught.value.reason is Reason.LIMIT
    assert caught.value.text == (
        "attach kprobe/many_*: 201 targets match, and 200 is the most (write a narrower glob, or several)"
    )
    assert len(expand(kernel, AttachPoint("kprobe", "many_1*", "f"))) == 111


def test_glob_needs_tracefs_for_tracepoints(tmp_path: Path) -> None:
    bare = Kernel(proc=tmp_path, sysfs=tmp_path, release="6.1.0")
    with pytest.raises(RefusedError, match="a glob needs tracefs, which is not there"):
        expand(bare, AttachPoint("tracepoint", "sched:*", "f"))


def test_a_function_has_its_other_names(kernel: Kernel) -> None:
    assert functions.aliases(kernel, "__x64_sys_getpid") == ["__ia32_sys_getpid"]
    assert functions.aliases(kernel, "vfs_read") == []
