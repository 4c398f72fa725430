"""Every kind of attach point, in one table; what a point's target names here, and the call that attaches it.

A kind is a row of KINDS in one file of attaching/: which program type the kernel wants for it, how its target is found,
and how a loaded program gets there. The fds of a Hold detach it when they are closed, and there is nothing to undo.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.kernel.features import Kernel
from exporter.loading.attaching import kprobe, sampling, tracepoint, tracing, uprobe, usdt
from exporter.loading.attaching.kind import MOST_PLACES, Kind, Link, Point, is_glob
from exporter.loading.refusal import RefusedError
from exporter.program import Reason

__all__ = ["KINDS", "Kind", "Link", "Point", "attach", "is_glob", "places"]

KINDS: dict[str, Kind] = {
    **kprobe.KINDS,
    **tracing.KINDS,
    **tracepoint.KINDS,
    **uprobe.KINDS,
    **usdt.KINDS,
    **sampling.KINDS,
}


def attach(kernel: Kernel, point: Point, prog_fd: int) -> Link:
    """Attach the program at the point, which is no glob. RefusedError says why it cannot be."""
    return KINDS[point.kind].attach(kernel, point, prog_fd)


def places(kernel: Kernel, point: Point) -> list[Point]:
    """The point, or one for each target that its glob names here. RefusedError for none, and for more than anybody
    means."""
    matching = KINDS[point.kind].matching
    if matching is None or not is_glob(point.target):
        return [point]
    found = matching(kernel, point)
    if len(found) > MOST_PLACES:
        raise RefusedError(
            Reason.LIMIT,
            f"{point.step}: {len(found)} targets match, and {MOST_PLACES} is the most (write a narrower glob, or"
            " several)",
        )
    return [replace(point, target=target) for target in found]
