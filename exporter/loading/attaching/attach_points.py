"""All attach points of a variant -> attached, or why not: globs spelled out, many functions by one link if possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from exporter.kernel.features import Kernel
from exporter.loading.attaching.kind import points_of
from exporter.loading.attaching.kinds import KINDS, Link, Point, attach, is_glob, places
from exporter.loading.load import LoadedFunctions
from exporter.loading.refusal import RefusedError
from exporter.program import Attachment, Reason
from exporter.spec import VariantSpec

# What an attach point marked optional, a program marked optional, or one match of a glob may lack. Never a right.
ABSENT = frozenset({Reason.MISSING, Reason.UNSUPPORTED})


def attach_all(
    variant: VariantSpec, programs: LoadedFunctions, kernel: Kernel, links: list[int]
) -> tuple[tuple[Attachment, ...], list[int]]:
    """Load every program and then attach every point: what the verifier refuses is refused before anything counts.

    Returns how each point ended and the program fds in use; the fds that hold them are added to `links`. RefusedError
    if a point fails that may not, or if none is left.
    """
    groups = [[_Plan(point) for point in points_of(at)] for at in variant.attach]
    seen: set[Point] = set()
    for group in groups:
        for plan in group:
            plan.load(programs, kernel, seen)
    used: list[int] = []
    for group in groups:
        for bundle in _bundles(group):
            _attach_bundle(bundle, programs, kernel, links, used)
        for plan in group:
            plan.attach_rest(programs, kernel, links, used)
            plan.check()
    plans = [plan for group in groups for plan in group]
    if not any(plan.held for plan in plans):
        raise next(plan.refusal for plan in plans if plan.refusal)
    return tuple(plan.attachment() for plan in plans), used


@dataclass(slots=True)
class _Plan:
    """A point on its way: what its target names here, and where of that it hangs."""

    point: Point
    places: list[Point] = field(default_factory=list)
    held: set[Point] = field(default_factory=set)
    links: list[int] = field(default_factory=list)
    cpus: tuple[int, ...] = ()
    refusal: RefusedError | None = None

    def load(self, programs: LoadedFunctions, kernel: Kernel, seen: set[Point]) -> None:
        """The programs for all its places but those in `seen`, which two globs name and must not count twice. Places
        that cannot have a program are none; the refusal of a point that may be absent is kept."""
        try:
            found = places(kernel, self.point)
        except RefusedError as error:
            self._refuse(error)
            return
        for place in found:
            if place in seen:
                continue
            try:
                programs.load(place)
            except RefusedError as error:
                self._refuse(error)
            else:
                self.places.append(place)
                seen.add(place)

    def attach_rest(self, programs: LoadedFunctions, kernel: Kernel, links: list[int], used: list[int]) -> None:
        """One link for each place that no bundle holds."""
        for place in self.places:
            if place in self.held:
                continue
            program = programs.load(place)
            try:
                hold = attach(kernel, place, program)
            except RefusedError as error:
                self._refuse(error)
            else:
                self.hold(place, hold, links)
                used.append(program)

    def hold(self, place: Point, hold: Link, links: list[int]) -> None:
        self.held.add(place)
        self.links += range(len(links), len(links) + len(hold.fds))
        self.cpus += hold.cpus
        links += hold.fds

    def share(self, place: Point, link: int) -> None:
        """A place that the link of that index holds, with others."""
        self.held.add(place)
        if link not in self.links:
            self.links.append(link)

    def attachment(self) -> Attachment:
        point = self.point
        if not self.held and self.refusal:
            return Attachment(
                point.kind, point.target, point.function, False, self.refusal.reason, self.refusal.text, places=0
            )
        count = len(self.cpus) or len(self.held)
        return Attachment(
            point.kind, point.target, point.function, True, places=count, links=tuple(self.links), cpus=self.cpus
        )

    def check(self) -> None:
        """What is wrong with it is raised here if nothing holds it and it is not optional."""
        if self.refusal and not self.held and not self.point.optional:
            raise self.refusal

    def _refuse(self, error: RefusedError) -> None:
        """Of a glob some matches may be unusable, of a point marked optional all."""
        if error.reason not in ABSENT or not (self.point.optional or is_glob(self.point.target)):
            raise error
        self.refusal = self.refusal or error


def _bundles(group: list[_Plan]) -> Iterator[list[tuple[_Plan, Point]]]:
    """The places of one entry of the configuration that one link could hold."""
    by_key: dict[str, list[tuple[_Plan, Point]]] = {}
    many = KINDS[group[0].point.kind].many
    if many is None:
        return
    for plan in group:
        for place in plan.places:
            by_key.setdefault(many.together(place), []).append((plan, place))
    yield from (bundle for bundle in by_key.values() if len(bundle) >= many.least)


def _attach_bundle(
    bundle: list[tuple[_Plan, Point]], programs: LoadedFunctions, kernel: Kernel, links: list[int], used: list[int]
) -> None:
    """One link for all, or nothing where that does not work: each place is then tried by itself, and says why."""
    first = bundle[0][1]
    many = KINDS[first.kind].many
    assert many is not None
    with suppress(RefusedError, OSError):
        program = programs.load(first, many=True)
        links.append(many.attach(kernel, [place for _, place in bundle], program))
        used.append(program)
        for plan, place in bundle:
            plan.share(place, len(links) - 1)
