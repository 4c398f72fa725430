"""One function per kind of attach point, in a table: where a program goes and how it gets there.

A kind says which program type the kernel wants for it, finds its target's BTF id where the type is bound to the target
at load, and attaches a loaded program: the fd it returns detaches when it is closed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from exporter.kernel import bpf, perf_event
from exporter.kernel.btf import BTF_KIND_TYPEDEF, KernelBtf
from exporter.kernel.features import Kernel
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason

# A system call's function is named by CONFIG_ARCH_HAS_SYSCALL_WRAPPER (4.17 x86, 4.19 arm64).
_SYSCALL_PREFIX = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}


@dataclass(frozen=True, slots=True)
class Point:
    """One program at one place: a target list in the YAML is several of them."""

    kind: str
    target: str
    function: str
    optional: bool = False

    @property
    def step(self) -> str:
        return f"attach {self.kind}/{self.target}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How programs of a kind are loaded and attached.

    btf_id  (kernel, point) -> BTF id of the target; None where the program type is not bound to a target
    attach  (kernel, point, program fd) -> fd of the attachment
    All raise RefusedError.
    """

    program_type: int
    attach: Callable[[Kernel, Point, int], int]
    expected_attach_type: int = 0
    btf_id: Callable[[Kernel, Point], int] | None = None


def attach(kernel: Kernel, point: Point, prog_fd: int) -> int:
    """Attach the program at the point: the fd that holds it there."""
    return KINDS[point.kind].attach(kernel, point, prog_fd)


@lru_cache(maxsize=1)
def kernel_types(path: Path) -> KernelBtf:
    """The running kernel's BTF, parsed once a process. OSError where the kernel has none."""
    return KernelBtf(path)


# --- kprobe, kretprobe ---


def _kprobe(kernel: Kernel, point: Point, prog_fd: int) -> int:
    return _kprobe_at(kernel, point, prog_fd, at_return=False)


def _kretprobe(kernel: Kernel, point: Point, prog_fd: int) -> int:
    return _kprobe_at(kernel, point, prog_fd, at_return=True)


def _kprobe_at(kernel: Kernel, point: Point, prog_fd: int, at_return: bool) -> int:
    symbol = _symbol(kernel, point)
    try:
        event = perf_event.open_kprobe(symbol, at_return, kernel.sysfs)
    except OSError as error:
        match error.errno:
            case errno.ENOENT:
                raise _no_function(kernel, point) from error
            case errno.EADDRNOTAVAIL:
                raise RefusedError(Reason.MISSING, f"{point.step}: several functions have this name") from error
            case errno.EINVAL:
                text = f"{point.step}: this function must not be probed (notrace, or in debugfs kprobes/blacklist)"
                raise RefusedError(Reason.UNSUPPORTED, text) from error
        raise refused(point.step, error, kernel) from error
    return _hang(kernel, point, event, prog_fd)


def _symbol(kernel: Kernel, point: Point) -> str:
    """The name as the kprobe PMU takes it. MODULE:FUNC is also a function that this kernel has built in."""
    module, _, function = point.target.rpartition(":")
    if function.startswith("sys_"):
        function = _SYSCALL_PREFIX.get(kernel.machine, "sys_") + function.removeprefix("sys_")
    if not module:
        return function
    places = {place for name, place in kernel.functions() if name == function}
    if module in places:
        return f"{module}:{function}"
    if "" in places:
        return function
    raise _no_function(kernel, point)


def _no_function(kernel: Kernel, point: Point) -> RefusedError:
    module, _, function = point.target.rpartition(":")
    place = f" in module {module}, and none built in" if module else ""
    names = kernel.near_functions(function)
    hint = f"near: {', '.join(names)}; " if names else ""
    return RefusedError(
        Reason.MISSING, f"{point.step}: no such function{place} ({hint}it may be inlined on this kernel: see variants)"
    )


# --- fentry, fexit ---


def _function_id(kernel: Kernel, point: Point) -> int:
    module, _, function = point.target.rpartition(":")
    if module and not kernel.has_function(function):
        raise _no_function(kernel, point)
    found = _types(kernel, point).function_id(function)
    if found:
        return found
    if kernel.has_function(function):
        cause = "this function is not in the kernel's BTF (a module's, or two static ones of one name: use a kprobe)"
        raise RefusedError(Reason.MISSING, f"{point.step}: {cause}")
    raise _no_function(kernel, point)


def _tracing(kernel: Kernel, point: Point, prog_fd: int) -> int:
    try:
        return bpf.raw_tracepoint_open(None, prog_fd)
    except OSError as error:
        raise refused(point.step, error, kernel, Reason.UNSUPPORTED) from error


# --- tracepoints ---


def _event_id(kernel: Kernel, point: Point) -> int:
    """The BTF id of the tracepoint's prototype, typedef btf_trace_NAME (include/trace/bpf_probe.h)."""
    found = _types(kernel, point).find(f"btf_trace_{point.target}", BTF_KIND_TYPEDEF)
    if not found:
        raise _no_event(kernel, point)
    return found


def _raw_tracepoint(kernel: Kernel, point: Point, prog_fd: int) -> int:
    try:
        return bpf.raw_tracepoint_open(point.target, prog_fd)
    except FileNotFoundError as error:
        raise _no_event(kernel, point) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # __bpf_probe_register(): max_ctx_offset > num_args
            text = f"{point.step}: {point.function} reads more arguments than this tracepoint has on this kernel"
            raise RefusedError(Reason.VERIFIER, text) from error
        raise refused(point.step, error, kernel) from error


def _tracepoint(kernel: Kernel, point: Point, prog_fd: int) -> int:
    category, _, event = point.target.partition(":")
    try:
        identity = kernel.tracepoint_id(category, event)
    except OSError as error:
        raise RefusedError(Reason.PERMISSION, f"{point.step}: {error.strerror}") from error
    if identity is None:
        raise _no_event(kernel, point)
    try:
        opened = perf_event.open_tracepoint(identity, kernel.sysfs)
    except OSError as error:
        raise refused(point.step, error, kernel) from error
    try:
        return _hang(kernel, point, opened, prog_fd)
    except RefusedError as error:
        # perf_event_set_bpf_prog() says EACCES too where a program reads beyond the event's record.
        if error.reason is Reason.UNSUPPORTED and isinstance(error.__cause__, PermissionError):
            text = f"{point.step}: {point.function} reads beyond this tracepoint's record (see its `format` in tracefs)"
            raise RefusedError(Reason.VERIFIER, text) from error
        raise


def _no_event(kernel: Kernel, point: Point) -> RefusedError:
    names = kernel.near_tracepoints(point.target)
    if names:
        hint = f"near: {', '.join(names)}"
    else:
        hint = "its module may not be loaded; `perf list tracepoint` shows what there is"
    return RefusedError(Reason.MISSING, f"{point.step}: no such tracepoint ({hint})")


# --- shared ---


def _types(kernel: Kernel, point: Point) -> KernelBtf:
    try:
        return kernel_types(kernel.btf)
    except OSError as error:
        text = f"{point.step}: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF): {error.strerror}"
        raise RefusedError(Reason.UNSUPPORTED, text) from error


def _hang(kernel: Kernel, point: Point, event: int, prog_fd: int) -> int:
    try:
        perf_event.set_bpf(event, prog_fd)
    except OSError as error:
        os.close(event)
        raise refused(point.step, error, kernel) from error
    return event


KINDS: dict[str, Kind] = {
    "kprobe": Kind(bpf.BPF_PROG_TYPE_KPROBE, _kprobe),
    "kretprobe": Kind(bpf.BPF_PROG_TYPE_KPROBE, _kretprobe),
    "fentry": Kind(bpf.BPF_PROG_TYPE_TRACING, _tracing, bpf.BPF_TRACE_FENTRY, _function_id),
    "fexit": Kind(bpf.BPF_PROG_TYPE_TRACING, _tracing, bpf.BPF_TRACE_FEXIT, _function_id),
    "tracepoint": Kind(bpf.BPF_PROG_TYPE_TRACEPOINT, _tracepoint),
    "raw_tracepoint": Kind(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, _raw_tracepoint),
    "tp_btf": Kind(bpf.BPF_PROG_TYPE_TRACING, _tracing, bpf.BPF_TRACE_RAW_TP, _event_id),
}
