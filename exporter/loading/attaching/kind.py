"""The types that all kinds of attach points share: the point, how the kernel loads and attaches a program for it, and
the link."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from exporter.kernel import perf_event
from exporter.kernel.btf import KernelBtf
from exporter.kernel.features import Kernel
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason
from exporter.spec import AttachSpec, VariantSpec

MAX_TARGETS = 200  # of one glob: more are a slip, or cost more than anybody expects

FILE_KINDS = ("uprobe", "uretprobe", "usdt")  # their targets begin with FILE:


@dataclass(frozen=True, slots=True)
class AttachPoint:
    """One function at one target; a list of targets in the YAML is several points. `period` (events) or `frequency`
    (Hz) is above 0 for a perf_event, and 0 for every other kind."""

    kind: str
    target: str
    function: str
    optional: bool = False
    period: int = 0
    frequency: int = 0

    @property
    def step(self) -> str:
        """Return how an error about this point begins."""
        return f"attach {self.kind}/{self.target}"

    @property
    def file(self) -> str:
        """Return the file that the target names; only a point of FILE_KINDS has one."""
        return self.target.partition(":")[0]


def points(variant: VariantSpec) -> list[AttachPoint]:
    """Return a point for each target, as they stand in the configuration."""
    return [point for spec in variant.attach for point in points_of(spec)]


def points_of(spec: AttachSpec) -> list[AttachPoint]:
    """Return a point for each target of one entry of `attach:`."""
    period, frequency = spec.period or 0, spec.frequency or 0
    return [AttachPoint(spec.kind, target, spec.function, spec.optional, period, frequency) for target in spec.targets]


@dataclass(frozen=True, slots=True)
class BtfTarget:
    """A type id in the kernel's BTF, or in that of a module."""

    id: int
    module: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """The fds that hold a program at its attach point: closing all of them detaches it.

    cpus  of each fd, for a point that has one for each CPU; else empty
    """

    fds: tuple[int, ...]
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MultiLink:
    """A link that holds one program at many points of a kind.

    attach     (kernel, points, program fd) -> the fd of the link. OSError where the kernel has no such links, or
               refuses one of the points: each point is then attached by a link of its own, whose refusal has the cause
    shared_by  points for which it returns the same text may share a link
    least      number of points from which on a shared link is used
    """

    expected_attach_type: int
    attach: Callable[[Kernel, Sequence[AttachPoint], int], int]
    shared_by: Callable[[AttachPoint], str] = lambda _point: ""
    least: int = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of attach point: how its programs are loaded and attached. Every function raises RefusedError.

    attach    (kernel, point, program fd) -> the link
    target    (kernel, point) -> the BTF type that the program is bound to at load; None where the kind binds to none
    matching  (kernel, point) -> the targets that the point's glob matches; None where the kind takes no globs
    multi     how one link holds many points; None where each point needs a link of its own
    """

    program_type: int
    attach: Callable[[Kernel, AttachPoint, int], Link]
    expected_attach_type: int = 0
    target: Callable[[Kernel, AttachPoint], BtfTarget] | None = None
    matching: Callable[[Kernel, AttachPoint], list[str]] | None = None
    multi: MultiLink | None = None


@lru_cache(maxsize=1)
def kernel_types(path: Path) -> KernelBtf:
    """Return the running kernel's BTF, parsed once a process. OSError where the kernel has none."""
    return KernelBtf(path)


@lru_cache(maxsize=16)
def module_types(path: Path, module: str) -> KernelBtf:
    """Return a module's types with the kernel's, out of the directory that has both. OSError where one has no BTF."""
    return KernelBtf(path.parent / module, base=kernel_types(path))


def types(kernel: Kernel, point: AttachPoint) -> KernelBtf:
    """Return the running kernel's BTF for a point that cannot do without: RefusedError where there is none."""
    try:
        return kernel_types(kernel.btf)
    except OSError as error:
        text = f"{point.step}: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF): {error.strerror}"
        raise RefusedError(Reason.UNSUPPORTED, text) from error


def attach_perf_event(kernel: Kernel, point: AttachPoint, event: int, prog_fd: int) -> Link:
    """Attach the program to an open perf event, which belongs to the link then; where that fails the event is
    closed."""
    try:
        perf_event.set_bpf(event, prog_fd)
    except OSError as error:
        os.close(event)
        raise refused(point.step, error, kernel) from error
    return Link((event,))


def is_glob(target: str) -> bool:
    """Return True if the target can match several functions or events."""
    return "*" in target or "?" in target
