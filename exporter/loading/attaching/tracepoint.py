"""tracepoint (by perf event, with the event's record), raw_tracepoint (its arguments) and tp_btf (typed by BTF)."""

from __future__ import annotations

import errno
import fnmatch

from exporter.kernel import bpf, links, perf_event
from exporter.kernel.btf import BTF_KIND_TYPEDEF
from exporter.kernel.features import Kernel
from exporter.loading.attaching.kind import AttachPoint, BtfTarget, Kind, Link, attach_perf_event, module_types, types
from exporter.loading.attaching.tracing import attach as attach_tracing
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason


def _event_id(kernel: Kernel, point: AttachPoint) -> BtfTarget:
    """Return the BTF id of the tracepoint's prototype, typedef btf_trace_NAME (include/trace/bpf_probe.h), which for an
    event of a module is in the module's own BTF."""
    name = f"btf_trace_{point.target}"
    if found := types(kernel, point).find(name, BTF_KIND_TYPEDEF):
        return BtfTarget(found)
    for module in kernel.modules_with_type(name):
        if found := module_types(kernel.btf, module).find(name, BTF_KIND_TYPEDEF):
            return BtfTarget(found, module)
    raise _no_event(kernel, point)


def _raw_tracepoint(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    try:
        return Link((links.raw_tracepoint(point.target, prog_fd),))
    except FileNotFoundError as error:
        raise _no_event(kernel, point) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # __bpf_probe_register(): max_ctx_offset > num_args
            text = f"{point.step}: {point.function} reads more arguments than this tracepoint has on this kernel"
            raise RefusedError(Reason.VERIFIER, text) from error
        raise refused(point.step, error, kernel) from error


def _tracepoint(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    category, _, event = point.target.partition(":")
    try:
        event_id = kernel.tracepoint_id(category, event)
    except OSError as error:
        raise RefusedError(Reason.PERMISSION, f"{point.step}: {error.strerror}") from error
    if event_id is None:
        raise _no_event(kernel, point)
    try:
        opened = perf_event.open_tracepoint(event_id, kernel.sysfs)
    except OSError as error:
        raise refused(point.step, error, kernel) from error
    try:
        return attach_perf_event(kernel, point, opened, prog_fd)
    except RefusedError as error:
        # perf_event_set_bpf_prog() says EACCES too where a program reads beyond the event's record.
        if error.reason is Reason.UNSUPPORTED and isinstance(error.__cause__, PermissionError):
            text = f"{point.step}: {point.function} reads beyond this tracepoint's record (see its `format` in tracefs)"
            raise RefusedError(Reason.VERIFIER, text) from error
        raise


def _matching(kernel: Kernel, point: AttachPoint) -> list[str]:
    """Return CATEGORY:EVENT for a tracepoint, EVENT for the other kinds. Events of category ftrace are no tracepoints,
    and single system calls have none of their own: only raw_syscalls:* has them raw."""
    if kernel.tracefs is None:
        hint = "mount -t tracefs tracefs /sys/kernel/tracing, or write the events as a list"
        raise RefusedError(Reason.PERMISSION, f"{point.step}: a glob needs tracefs, which is not there ({hint})")
    names = [name for name in kernel.tracepoints() if not name.startswith("ftrace:")]
    if point.kind != "tracepoint":
        names = [name.partition(":")[2] for name in names if not name.startswith("syscalls:")]
    found = sorted(fnmatch.filter(set(names), point.target))
    if not found:
        raise RefusedError(
            Reason.MISSING, f"{point.step}: no tracepoint matches (`perf list tracepoint` shows what there is)"
        )
    return found


def _no_event(kernel: Kernel, point: AttachPoint) -> RefusedError:
    names = kernel.near_tracepoints(point.target)
    if names:
        hint = f"near: {', '.join(names)}"
    else:
        hint = "its module may not be loaded; `perf list tracepoint` shows what there is"
    return RefusedError(Reason.MISSING, f"{point.step}: no such tracepoint ({hint})")


KINDS = {
    "tracepoint": Kind(bpf.BPF_PROG_TYPE_TRACEPOINT, _tracepoint, matching=_matching),
    "raw_tracepoint": Kind(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, _raw_tracepoint, matching=_matching),
    "tp_btf": Kind(bpf.BPF_PROG_TYPE_TRACING, attach_tracing, bpf.BPF_TRACE_RAW_TP, _event_id, _matching),
}
