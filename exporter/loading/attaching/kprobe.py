"""kprobe and kretprobe, at the entry and the return of kernel functions: one by one through the kprobe PMU, many at
once by a kprobe.multi link (5.18, and only where the kernel was built with CONFIG_FPROBE)."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from exporter.kernel import bpf, links, perf_event
from exporter.kernel.features import Kernel
from exporter.loading.attaching import functions
from exporter.loading.attaching.kind import AttachPoint, Kind, Link, MultiLink, attach_perf_event
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason


def _entry(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    return _attach(kernel, point, prog_fd, at_return=False)


def _return(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    return _attach(kernel, point, prog_fd, at_return=True)


def _attach(kernel: Kernel, point: AttachPoint, prog_fd: int, at_return: bool) -> Link:
    module, function = functions.find(kernel, point)
    try:
        event = perf_event.open_kprobe(f"{module}:{function}" if module else function, at_return, kernel.sysfs)
    except OSError as error:
        match error.errno:
            case errno.ENOENT:
                raise functions.missing(kernel, point) from error
            case errno.EADDRNOTAVAIL:
                raise RefusedError(Reason.MISSING, f"{point.step}: several functions have this name") from error
            case errno.EINVAL:
                text = f"{point.step}: this function must not be probed (notrace, or in debugfs kprobes/blacklist)"
                raise RefusedError(Reason.UNSUPPORTED, text) from error
        raise refused(point.step, error, kernel) from error
    return attach_perf_event(kernel, point, event, prog_fd)


def _attach_multi(kernel: Kernel, points: Sequence[AttachPoint], prog_fd: int) -> int:
    symbols = [functions.split(kernel, point.target)[1] for point in points]
    return links.kprobe_multi(prog_fd, symbols, at_return=points[0].kind == "kretprobe")


_MULTI = MultiLink(bpf.BPF_TRACE_KPROBE_MULTI, _attach_multi)

KINDS = {
    "kprobe": Kind(bpf.BPF_PROG_TYPE_KPROBE, _entry, matching=functions.matching, multi=_MULTI),
    "kretprobe": Kind(bpf.BPF_PROG_TYPE_KPROBE, _return, matching=functions.matching, multi=_MULTI),
}
