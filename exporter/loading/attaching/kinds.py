"""Every kind of attach point in one table, globs expanded, and the call that attaches a program.

A kind is a row of KINDS in one file of attaching/: which program type the kernel wants for it, how its target is found,
and how a loaded program is attached. Closing the fds of a Link detaches the program; nothing else is to be undone.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.kernel.features import Kernel
from exporter.loading.attaching import kprobe, sampling, tracepoint, tracing, uprobe, usdt
from exporter.loading.attaching.kind import MAX_TARGETS, AttachPoint, Kind, Link, is_glob
from exporter.loading.refusal import RefusedError
from exporter.program import Reason

__all__ = ["KINDS", "AttachPoint", "Kind", "Link", "attach", "expand", "is_glob"]

KINDS: dict[str, Kind] = {
    **kprobe.KINDS,
    **tracing.KINDS,
    **tracepoint.KINDS,
    **uprobe.KINDS,
    **usdt.KINDS,
    **sampling.KINDS,
}


def attach(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    """Attach the program at the point, which is no glob. RefusedError with the cause where that fails."""
    return KINDS[point.kind].attach(kernel, point, prog_fd)


def expand(kernel: Kernel, point: AttachPoint) -> list[AttachPoint]:
    """Return the point itself, or a point for each target that its glob matches here. RefusedError for no match, and
    for more than MAX_TARGETS."""
    matching = KINDS[point.kind].matching
    if matching is None or not is_glob(point.target):
        return [point]
    found = matching(kernel, point)
    if len(found) > MAX_TARGETS:
        raise RefusedError(
            Reason.LIMIT,
            f"{point.step}: {len(found)} targets match, and {MAX_TARGETS} is the most (write a narrower glob, or"
            " several)",
        )
    return [replace(point, target=target) for target in found]
