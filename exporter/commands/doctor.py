"""`doctor`: what this host has and allows, and what to do about each problem."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from exporter.commands.exit_codes import EXIT_OK, EXIT_RUNTIME
from exporter.kernel import cgroups, clocksource, memory, pods, rights, sysctl
from exporter.kernel.features import Kernel
from exporter.loading import load
from exporter.loading.attaching.kinds import AttachPoint
from exporter.loading.compiling import compiler
from exporter.loading.refusal import RefusedError
from exporter.supervisor.loaders import LOADER_MEMORY

OLDEST = (5, 10)
Level = Literal["ok", "note", "problem"]

# A target that every kernel has, for each kind: a program that does nothing is attached there for a moment.
TARGETS = {
    "kprobe": "tcp_sendmsg",
    "kretprobe": "tcp_sendmsg",
    "fentry": "tcp_sendmsg",
    "fexit": "tcp_sendmsg",
    "tracepoint": "sched:sched_process_exec",
    "raw_tracepoint": "sched_process_exec",
    "tp_btf": "sched_process_exec",
    "uprobe": "c:getppid",
    "uretprobe": "c:getppid",
    "usdt": "stdc++:libstdcxx:throw",
    "perf_event": "cpu-clock",
}
# Kinds of which one link can hold many targets, and two targets.
MULTI = {"kprobe": ("tcp_sendmsg", "tcp_recvmsg"), "uprobe": ("c:getppid", "c:getpid")}
FREQUENCY = 1  # of the perf_event, a second


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was examined, and what was found. `advice` is "" where there is nothing to do."""

    subject: str
    level: Level
    found: str
    advice: str = ""


def examine(kernel: Kernel | None = None) -> Iterator[Line]:
    """Yield a line for everything that is examined. A problem keeps programs from running; a note limits some."""
    kernel = kernel or Kernel()
    yield from read(kernel)
    yield from tried(kernel)


def read(kernel: Kernel, root: Path = Path("/")) -> Iterator[Line]:
    """Yield what files and settings of the host say."""
    yield _release(kernel)
    yield _types(kernel)
    yield _tracefs(kernel)
    yield _symbols(kernel)
    yield _rights()
    yield _lockdown(kernel)
    yield from _settings(kernel)
    yield _bcc()
    yield _memory(kernel)
    yield _python()
    yield _clock(kernel)
    yield _cgroups(kernel)
    yield _pods(root)


def tried(kernel: Kernel) -> Iterator[Line]:
    """Attach a program that does nothing, for a moment, by each kind; yield whether that succeeded."""
    for kind, target in TARGETS.items():
        yield _kind(kernel, kind, target)
    for kind, targets in MULTI.items():
        yield _multi(kernel, kind, targets)
    yield _counters(kernel)


def _release(kernel: Kernel) -> Line:
    found = f"{kernel.release}, {kernel.machine}"
    if kernel.version < OLDEST:
        return Line("kernel", "problem", found, "5.10 is the oldest kernel that is tested: programs may not load")
    if kernel.machine not in ("x86_64", "aarch64"):
        return Line("kernel", "problem", found, "only x86_64 and aarch64 are supported")
    return Line("kernel", "ok", found)


def _types(kernel: Kernel) -> Line:
    subject = "kernel types (BTF)"
    if kernel.btf.exists():
        return Line(subject, "ok", str(kernel.btf))
    if headers := kernel.headers:
        advice = "programs compile with these headers; fentry, fexit, tp_btf and `requires: {member: ...}` need a kernel with CONFIG_DEBUG_INFO_BTF"  # noqa: E501
        return Line(subject, "note", f"no {kernel.btf}, but the headers in {headers}", advice)
    advice = f"install the headers of {kernel.release} (Debian: apt-get install linux-headers-{kernel.release}), or a kernel built with CONFIG_DEBUG_INFO_BTF"  # noqa: E501
    return Line(subject, "problem", f"no {kernel.btf}, and no headers", advice)


def _tracefs(kernel: Kernel) -> Line:
    if kernel.tracefs:
        return Line("tracefs", "ok", str(kernel.tracefs))
    advice = "mount -t tracefs tracefs /sys/kernel/tracing (needed by `tracepoint`; the other kinds do without)"
    return Line("tracefs", "note", "not mounted, or hidden from this process", advice)


def _symbols(kernel: Kernel) -> Line:
    subject = "kernel symbols"
    restrict = sysctl.read("kernel.kptr_restrict", kernel.proc)
    shown = f"kernel.kptr_restrict is {_set_to(restrict)}"
    try:
        hidden = not any(address for address, _, _ in kernel.function_addresses())
    except OSError as error:
        advice = "labels by `ksym` and `kstack` will be `unknown`: a kernel with CONFIG_KALLSYMS has the names"
        return Line(subject, "note", f"{kernel.proc / 'kallsyms'}: {error.strerror}", advice)
    if hidden:
        advice = "labels by `ksym` and `kstack` will be `unknown`: sysctl kernel.kptr_restrict=1 shows them to root"
        return Line(subject, "note", f"addresses are hidden, {shown}", advice)
    return Line(subject, "ok", f"addresses can be read, {shown}")


def _rights() -> Line:
    missing = rights.missing_to_load()
    if missing:
        return Line("rights", "problem", f"without {', '.join(missing)}", rights.ADVICE)
    return Line("rights", "ok", ", ".join(rights.TO_LOAD))


def _lockdown(kernel: Kernel) -> Line:
    mode = rights.lockdown(kernel.sysfs)
    if mode == "confidentiality":
        advice = "this mode forbids reading kernel memory, so most programs do not load: kernel_lockdown(7)"
        return Line("lockdown", "problem", mode, advice)
    return Line("lockdown", "ok", mode)


def _settings(kernel: Kernel) -> Iterator[Line]:
    paranoid = sysctl.read("kernel.perf_event_paranoid", kernel.proc)
    hint = "CAP_PERFMON is not enough for kprobes: the loader also needs CAP_SYS_ADMIN, which the systemd unit gives it"
    high = paranoid is not None and paranoid > 2
    yield Line("kernel.perf_event_paranoid", "note" if high else "ok", _set_to(paranoid), hint if high else "")
    disabled = sysctl.read("kernel.unprivileged_bpf_disabled", kernel.proc)
    hint = (
        "unprivileged users may load BPF programs: sysctl kernel.unprivileged_bpf_disabled=2 (the exporter has rights)"
    )
    level: Level = "note" if disabled == 0 else "ok"
    yield Line("kernel.unprivileged_bpf_disabled", level, _set_to(disabled), hint if disabled == 0 else "")
    jit = sysctl.read("net.core.bpf_jit_enable", kernel.proc)
    hint = "programs are interpreted and cost several times as much: sysctl net.core.bpf_jit_enable=1"
    yield Line("net.core.bpf_jit_enable", "note" if jit == 0 else "ok", _set_to(jit), hint if jit == 0 else "")


def _set_to(value: int | None) -> str:
    return "this kernel has no such setting" if value is None else str(value)


def _bcc() -> Line:
    version = compiler.bcc_version()
    if version is None:
        advice = "apt-get install python3-bpfcc, and a venv made with --system-site-packages; or use a cache that `bpf-exporter compile` filled on another host"  # noqa: E501
        return Line("bcc", "note", "not installed", advice)
    return Line("bcc", "ok", version)


def _memory(kernel: Kernel) -> Line:
    available = memory.available(kernel.proc)
    found = f"{available >> 20} MiB available"
    if available < LOADER_MEMORY:
        advice = f"a compiler takes up to {LOADER_MEMORY >> 20} MiB: programs are loaded one by one, and the compiler may be killed; a cache that `bpf-exporter compile` filled needs no compiler"  # noqa: E501
        return Line("memory to compile", "note", found, advice)
    return Line("memory to compile", "ok", found)


def _python() -> Line:
    return Line("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def _clock(kernel: Kernel) -> Line:
    source = clocksource.current(kernel.sysfs)
    if source in clocksource.SLOW:
        advice = "reading the clock takes a microsecond or more, in every program that measures a time: the kernel's log says why it does not use a faster clock"  # noqa: E501
        return Line("clock", "note", source, advice)
    return Line("clock", "ok", source or "not known")


def _cgroups(kernel: Kernel) -> Line:
    mount, controllers = cgroups.find_mount(kernel.proc), cgroups.find_controllers(kernel.proc)
    if mount is None and controllers:
        advice = "bpf_get_current_cgroup_id() is that of the root for all: labels of units, containers and pods need `{cgroup: pids}`, see docs/configuration.md; or boot with systemd.unified_cgroup_hierarchy=1"  # noqa: E501
        return Line("cgroups", "note", f"version 1 alone ({', '.join(sorted(controllers))})", advice)
    if mount is None:
        advice = "labels of units, containers and pods will be `unknown`: mount cgroup2"
        return Line("cgroups", "note", "not mounted", advice)
    if controllers:
        advice = "what is in cgroups of version 1 alone (Docker with cgroupfs puts it there) needs `{cgroup: pids}`: see docs/configuration.md"  # noqa: E501
        return Line("cgroups", "note", f"version 2 at {mount}, controllers in version 1", advice)
    return Line("cgroups", "ok", f"version 2 at {mount}")


def _pods(root: Path) -> Line:
    path = root / pods.LOGS
    try:
        os.listdir(path)
    except FileNotFoundError:
        return Line("pods", "ok", f"no {path}: this host is no Kubernetes node")
    except OSError as error:
        advice = "labels by `pod` will be `unknown`: start the exporter as root, and mount the host's /var/log/pods into its container"  # noqa: E501
        return Line("pods", "note", f"{path}: {error.strerror}", advice)
    return Line("pods", "ok", str(path))


def _kind(kernel: Kernel, kind: str, target: str) -> Line:
    point = AttachPoint(kind, target, "probe", frequency=FREQUENCY if kind == "perf_event" else 0)
    return _attempt(f"attach {kind}", lambda: load.probe(kernel, point), "programs with other variants run")


def _multi(kernel: Kernel, kind: str, targets: tuple[str, ...]) -> Line:
    points = [AttachPoint(kind, target, "probe") for target in targets]
    return _attempt(f"attach {kind}.multi", lambda: load.probe_multi(kernel, points),
                    "points are attached and, slower, detached one by one")  # fmt: skip


def _counters(kernel: Kernel) -> Line:
    point = AttachPoint("perf_event", "cycles", "probe", frequency=FREQUENCY)
    return _attempt("hardware counters", lambda: load.probe(kernel, point), "programs that sample cpu-clock run")


def _attempt(subject: str, attempt: Callable[[], None], otherwise: str) -> Line:
    try:
        attempt()
    except RefusedError as error:
        return Line(subject, "note", f"no ({error.reason})", f"{error.text}; {otherwise}")
    return Line(subject, "ok", "yes")


def command(options: argparse.Namespace) -> int:
    """Run `bpf-exporter doctor`: print what this host allows. Return the exit code: 1 if there is a problem."""
    lines = list(examine())
    if options.json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
    else:
        for line in lines:
            mark = {"ok": " ", "note": "-", "problem": "!"}[line.level]
            print(f"{mark} {line.subject}: {line.found}" + (f"\n    {line.advice}" if line.advice else ""))
    return EXIT_RUNTIME if any(line.level == "problem" for line in lines) else EXIT_OK
