"""What this host allows: each line what was looked at, what it is, and what to do about it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from exporter.kernel import cgroups, rights, sysctl
from exporter.kernel.features import Kernel
from exporter.loading import compiler, load
from exporter.loading.attach import Point
from exporter.loading.refusal import RefusedError

OLDEST = (5, 10)
Level = Literal["ok", "note", "problem"]

# A place that every kernel has, for each kind: a program that does nothing is attached there for a moment.
PLACES = {
    "kprobe": "tcp_sendmsg",
    "kretprobe": "tcp_sendmsg",
    "fentry": "tcp_sendmsg",
    "fexit": "tcp_sendmsg",
    "tracepoint": "sched:sched_process_exec",
    "raw_tracepoint": "sched_process_exec",
    "tp_btf": "sched_process_exec",
    "uprobe": "c:getppid",
    "uretprobe": "c:getppid",
    "perf_event": "cpu-clock",
}
FREQUENCY = 1  # of the perf_event, a second


@dataclass(frozen=True, slots=True)
class Line:
    """One thing looked at. `advice` is "" where there is nothing to do."""

    subject: str
    level: Level
    found: str
    advice: str = ""


def examine(kernel: Kernel | None = None) -> Iterator[Line]:
    """Every line, problems among them. A problem is what keeps programs from running; a note what limits some."""
    kernel = kernel or Kernel()
    yield _release(kernel)
    yield _types(kernel)
    yield _tracefs(kernel)
    yield _rights()
    yield _lockdown(kernel)
    yield from _settings(kernel)
    yield _bcc()
    yield _python()
    yield _cgroups(kernel)
    for kind, target in PLACES.items():
        yield _kind(kernel, kind, target)


def _release(kernel: Kernel) -> Line:
    found = f"{kernel.release}, {kernel.machine}"
    if kernel.version < OLDEST:
        return Line("kernel", "problem", found, "5.10 is the oldest kernel that is tested: programs may not load")
    if kernel.machine not in ("x86_64", "aarch64"):
        return Line("kernel", "problem", found, "only x86_64 and aarch64 are supported")
    return Line("kernel", "ok", found)


def _types(kernel: Kernel) -> Line:
    if kernel.btf.exists():
        return Line("kernel types (BTF)", "ok", str(kernel.btf))
    advice = f"install the headers of {kernel.release} (Debian: apt-get install linux-headers-{kernel.release}), or a kernel built with CONFIG_DEBUG_INFO_BTF"  # noqa: E501
    return Line("kernel types (BTF)", "problem", f"no {kernel.btf}", advice)


def _tracefs(kernel: Kernel) -> Line:
    if kernel.tracefs:
        return Line("tracefs", "ok", str(kernel.tracefs))
    advice = "mount -t tracefs tracefs /sys/kernel/tracing (needed by `tracepoint`; the other kinds do without)"
    return Line("tracefs", "note", "not mounted, or hidden from this process", advice)


def _rights() -> Line:
    missing = rights.missing_to_load()
    if missing:
        advice = "run as root, or give the capabilities to the service"
        return Line("rights", "problem", f"without {', '.join(missing)}", advice)
    return Line("rights", "ok", ", ".join(rights.TO_LOAD))


def _lockdown(kernel: Kernel) -> Line:
    mode = rights.lockdown(kernel.sysfs)
    if mode == "confidentiality":
        advice = "this mode forbids reading kernel memory, so most programs do not load: kernel_lockdown(7)"
        return Line("lockdown", "problem", mode, advice)
    return Line("lockdown", "ok", mode)


def _settings(kernel: Kernel) -> Iterator[Line]:
    paranoid = sysctl.read("kernel.perf_event_paranoid", kernel.proc)
    hint = "CAP_PERFMON is not enough for kprobes: the loader needs CAP_SYS_ADMIN, which the unit gives it"
    high = paranoid is not None and paranoid > 2
    yield Line("kernel.perf_event_paranoid", "note" if high else "ok", _set_to(paranoid), hint if high else "")
    disabled = sysctl.read("kernel.unprivileged_bpf_disabled", kernel.proc)
    hint = (
        "users without rights may load programs: sysctl kernel.unprivileged_bpf_disabled=2 (nothing here needs it off)"
    )
    level: Level = "note" if disabled == 0 else "ok"
    yield Line("kernel.unprivileged_bpf_disabled", level, _set_to(disabled), hint if disabled == 0 else "")
    jit = sysctl.read("net.core.bpf_jit_enable", kernel.proc)
    hint = "programs are interpreted and cost several times as much: sysctl net.core.bpf_jit_enable=1"
    yield Line("net.core.bpf_jit_enable", "note" if jit == 0 else "ok", _set_to(jit), hint if jit == 0 else "")


def _set_to(value: int | None) -> str:
    return "no such setting here" if value is None else str(value)


def _bcc() -> Line:
    version = compiler.bcc_version()
    if version is None:
        advice = "apt-get install python3-bpfcc, and a venv made with --system-site-packages; or a cache made elsewhere"
        return Line("bcc", "note", "not installed", advice)
    return Line("bcc", "ok", version)


def _python() -> Line:
    return Line("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def _cgroups(kernel: Kernel) -> Line:
    mount = cgroups.find_mount(kernel.proc)
    if mount is None:
        advice = "labels of units, containers and pods will be `unknown`: mount cgroup2"
        return Line("cgroup2", "note", "not mounted", advice)
    return Line("cgroup2", "ok", str(mount))


def _kind(kernel: Kernel, kind: str, target: str) -> Line:
    subject = f"attach {kind}"
    try:
        frequency = FREQUENCY if kind == "perf_event" else 0
        load.probe(kernel, Point(kind, target, "probe", frequency=frequency))
    except RefusedError as error:
        return Line(subject, "note", f"no ({error.reason})", f"{error.text}; programs with other variants run")
    return Line(subject, "ok", "yes")
