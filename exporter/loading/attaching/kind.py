"""What every kind of attach point is made of: the point, what the kernel wants for it, and what holds it there."""

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

MOST_PLACES = 200  # that one glob may name: more is a slip, or a price that nobody wants to pay unasked

FILE_KINDS = ("uprobe", "uretprobe", "usdt")  # their targets begin with FILE:


@dataclass(frozen=True, slots=True)
class Point:
    """One program at one target: a target list in the YAML is several of them. `period` (events) or `frequency` (Hz)
    is above 0 for a perf_event, and for nothing else."""

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


def points(variant: VariantSpec) -> list[Point]:
    """Return a point for each target, as they stand in the configuration."""
    return [point for spec in variant.attach for point in points_of(spec)]


def points_of(spec: AttachSpec) -> list[Point]:
    """Return a point for each target of one entry of `attach:`."""
    period, frequency = spec.period or 0, spec.frequency or 0
    return [Point(spec.kind, target, spec.function, spec.optional, period, frequency) for target in spec.targets]


@dataclass(frozen=True, slots=True)
class BtfTarget:
    """A type id in the kernel's BTF, or in that of a module."""

    id: int
    module: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """What keeps a program attached: closing all of `fds` detaches it.

    cpus  of each fd, where a point has one for each CPU; else empty
    """

    fds: tuple[int, ...]
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MultiLink:
    """How a kind attaches one program at many points by one link.

    attach    (kernel, points, program fd) -> the fd of the link. OSError where the kernel cannot, or not there: each
              point is then attached by itself, and says what is wrong with it
    together  points of one answer may share a link
    least     number of points that are worth it
    """

    expected_attach_type: int
    attach: Callable[[Kernel, Sequence[Point], int], int]
    together: Callable[[Point], str] = lambda _point: ""
    least: int = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """How programs of a kind are loaded and attached.

    attach    (kernel, point, program fd) -> what holds it there
    target    (kernel, point) -> the type it is bound to at load; None where the program type is not bound to any
    matching  (kernel, point) -> the targets that a point with a glob names; None where there are no globs
    many      None where each point needs a link of its own
    All raise RefusedError.
    """

    program_type: int
    attach: Callable[[Kernel, Point, int], Link]
    expected_attach_type: int = 0
    target: Callable[[Kernel, Point], BtfTarget] | None = None
    matching: Callable[[Kernel, Point], list[str]] | None = None
    many: MultiLink | None = None


@lru_cache(maxsize=1)
def kernel_types(path: Path) -> KernelBtf:
    """The running kernel's BTF, parsed once a process. OSError where the kernel has none."""
    return KernelBtf(path)


@lru_cache(maxsize=16)
def module_types(path: Path, module: str) -> KernelBtf:
    """A module's types and the kernel's, of the directory that holds both. OSError where one has no BTF."""
    return KernelBtf(path.parent / module, base=kernel_types(path))


def types(kernel: Kernel, point: Point) -> KernelBtf:
    try:
        return kernel_types(kernel.btf)
    except OSError as error:
        text = f"{point.step}: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF): {error.strerror}"
        raise RefusedError(Reason.UNSUPPORTED, text) from error


def attach_perf_event(kernel: Kernel, point: Point, event: int, prog_fd: int) -> Link:
    """The program at a perf event that was opened for it; the event is closed where that fails."""
    try:
        perf_event.set_bpf(event, prog_fd)
    except OSError as error:
        os.close(event)
        raise refused(point.step, error, kernel) from error
    return Link((event,))


def is_glob(target: str) -> bool:
    return "*" in target or "?" in target
