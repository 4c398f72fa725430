"""All attach points of a variant -> attached, or the cause: globs expanded, many targets by one link where possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from exporter.kernel.features import Kernel
from exporter.loading.attaching.kind import points_of
from exporter.loading.attaching.kinds import KINDS, AttachPoint, Link, attach, expand, is_glob
from exporter.loading.load import LoadedFunctions
from exporter.loading.refusal import RefusedError
from exporter.program import Attachment, Reason
from exporter.spec import VariantSpec

# What an attach point marked optional, a program marked optional, or one match of a glob may lack. Never a right.
ABSENT = frozenset({Reason.MISSING, Reason.UNSUPPORTED})


def attach_all(
    variant: VariantSpec, functions: LoadedFunctions, kernel: Kernel, fds: list[int]
) -> tuple[tuple[Attachment, ...], list[int]]:
    """Load every program, then attach every point: what the verifier refuses is refused before anything counts.

    fds  the fds of the links are added to it

    Returns what became of each point, and the program fds in use. RefusedError if a point fails that is not optional,
    or if none is attached.
    """
    groups = [[_Resolved(point) for point in points_of(spec)] for spec in variant.attach]
    seen: set[AttachPoint] = set()
    for group in groups:
        for resolved in group:
            resolved.load(functions, kernel, seen)
    used: list[int] = []
    for group in groups:
        for bundle in _bundles(group):
            _attach_bundle(bundle, functions, kernel, fds, used)
        for resolved in group:
            resolved.attach_rest(functions, kernel, fds, used)
            resolved.check()
    points = [resolved for group in groups for resolved in group]
    if not any(resolved.attached for resolved in points):
        raise next(resolved.refusal for resolved in points if resolved.refusal)
    return tuple(resolved.attachment() for resolved in points), used


@dataclass(slots=True)
class _Resolved:
    """An attach point being resolved: the targets it matches, and the links that hold a program there.

    targets   a point for each target that has a program
    attached  those of them that have a link
    links     indices of the links, some of which hold the targets of other points too
    cpus      of each link, for a perf_event; else empty
    refusal   of the point, or of the first target that was refused
    """

    point: AttachPoint
    targets: list[AttachPoint] = field(default_factory=list)
    attached: set[AttachPoint] = field(default_factory=set)
    links: list[int] = field(default_factory=list)
    cpus: tuple[int, ...] = ()
    refusal: RefusedError | None = None

    def load(self, functions: LoadedFunctions, kernel: Kernel, seen: set[AttachPoint]) -> None:
        """Load the programs for all targets but those in `seen`, which two globs match and must not count twice. A
        target that cannot have a program is left out; the refusal of a point that may be absent is kept."""
        try:
            found = expand(kernel, self.point)
        except RefusedError as error:
            self._refuse(error)
            return
        for target in found:
            if target in seen:
                continue
            try:
                functions.load(target)
            except RefusedError as error:
                self._refuse(error)
            else:
                self.targets.append(target)
                seen.add(target)

    def attach_rest(self, functions: LoadedFunctions, kernel: Kernel, fds: list[int], used: list[int]) -> None:
        """Make a link for each target that is not attached by a bundle."""
        for target in self.targets:
            if target in self.attached:
                continue
            program = functions.load(target)
            try:
                link = attach(kernel, target, program)
            except RefusedError as error:
                self._refuse(error)
            else:
                self._add(target, link, fds)
                used.append(program)

    def _add(self, target: AttachPoint, link: Link, fds: list[int]) -> None:
        self.attached.add(target)
        self.links += range(len(fds), len(fds) + len(link.fds))
        self.cpus += link.cpus
        fds += link.fds

    def share(self, target: AttachPoint, link: int) -> None:
        """Note that the link of that index holds the target, with others."""
        self.attached.add(target)
        if link not in self.links:
            self.links.append(link)

    def attachment(self) -> Attachment:
        """Return what became of the point."""
        point = self.point
        if not self.attached and self.refusal:
            return Attachment(
                point.kind, point.target, point.function, False, self.refusal.reason, self.refusal.text, sites=0
            )
        count = len(self.cpus) or len(self.attached)
        return Attachment(
            point.kind, point.target, point.function, True, sites=count, links=tuple(self.links), cpus=self.cpus
        )

    def check(self) -> None:
        """Raise the refusal if nothing is attached and the point is not optional."""
        if self.refusal and not self.attached and not self.point.optional:
            raise self.refusal

    def _refuse(self, error: RefusedError) -> None:
        """Keep the refusal where the point may be absent, else raise it: all of a point marked optional may, and some
        matches of a glob."""
        if error.reason not in ABSENT or not (self.point.optional or is_glob(self.point.target)):
            raise error
        self.refusal = self.refusal or error


def _bundles(group: list[_Resolved]) -> Iterator[list[tuple[_Resolved, AttachPoint]]]:
    """Yield the targets of one entry of `attach:` that one link could hold."""
    by_key: dict[str, list[tuple[_Resolved, AttachPoint]]] = {}
    multi = KINDS[group[0].point.kind].multi
    if multi is None:
        return
    for resolved in group:
        for target in resolved.targets:
            by_key.setdefault(multi.shared_by(target), []).append((resolved, target))
    yield from (bundle for bundle in by_key.values() if len(bundle) >= multi.least)


def _attach_bundle(
    bundle: list[tuple[_Resolved, AttachPoint]],
    functions: LoadedFunctions,
    kernel: Kernel,
    fds: list[int],
    used: list[int],
) -> None:
    """Make one link for all targets. Where that is refused nothing changes: each target is then attached by a link of
    its own, whose refusal has the cause."""
    first = bundle[0][1]
    multi = KINDS[first.kind].multi
    assert multi is not None
    with suppress(RefusedError, OSError):
        program = functions.load(first, multi=True)
        fds.append(multi.attach(kernel, [target for _, target in bundle], program))
        used.append(program)
        for resolved, target in bundle:
            resolved.share(target, len(fds) - 1)
