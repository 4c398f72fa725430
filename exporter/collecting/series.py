"""Label sets of rows -> the series of a family: equal sets made one, and at most max_series of them.

A series is named by its label set, and `Limit` is the one place that says which of them are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.labels import LabelSet, Rows

OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """How the rows of a family become its series.

    sets    the label sets shown, sorted, all different
    order   indices of the rows, those of the first set first; rows without a label set are not in it
    starts  where in `order` each set begins; None if each has one row
    group   for each row its place in `sets`, -1 for rows without
    folded  label sets that went into "other"
    dropped rows without a label set
    """

    sets: list[LabelSet]
    order: NDArray[np.intp]
    starts: NDArray[np.intp] | None
    group: NDArray[np.intp]
    folded: int
    dropped: int


class Budget:
    """Series of all metrics together (limits.series)."""

    def __init__(self, most: int) -> None:
        self._most = most
        # By who shows them; what a program that was unloaded had is free again.
        self._shown: WeakKeyDictionary[Limit, int] = WeakKeyDictionary()

    def grant(self, limit: Limit, shown: int, wanted: int) -> int:
        """How many of the `wanted` series `limit` may show beside the `shown` ones that it has already."""
        free = self._most - sum(n for other, n in self._shown.items() if other is not limit) - shown
        granted = max(0, min(wanted, free))
        self._shown[limit] = shown + granted
        return granted


class Limit:
    """Which label sets of a family are shown: the first `max_series` seen stay as long as they live, later ones fold.

    A set once folded stays folded while it lives, even when a place gets free: moved out of "other" it would take its
    count with it, and a counter must not go down.
    """

    def __init__(self, max_series: int, budget: Budget | None = None) -> None:
        self._most = max_series
        self._budget = budget
        self._shown: list[LabelSet] = []  # sorted
        self._folded: set[LabelSet] = set()
        self.ended = 0  # label sets that were shown or folded and are gone, so far

    def admit(self, alive: Mapping[LabelSet, object]) -> tuple[list[LabelSet], set[LabelSet]]:
        """The sets of `alive` that are shown, sorted, and those that have to be folded."""
        before = len(self._shown) + len(self._folded)
        shown = [labels for labels in self._shown if labels in alive]
        self._folded &= alive.keys()
        self.ended += before - len(shown) - len(self._folded)
        if len(shown) + len(self._folded) < len(alive):
            fresh = sorted(alive.keys() - shown - self._folded)
            room = max(0, min(self._most - len(shown), len(fresh)))
            if self._budget is not None:
                room = self._budget.grant(self, len(shown), room)
            self._folded.update(fresh[room:])
            shown = sorted(shown + fresh[:room])  # two sorted runs: merged, not sorted anew
        elif self._budget is not None:
            self._budget.grant(self, len(shown), 0)
        self._shown = shown
        return shown, self._folded


def arrange(entries: Sequence[Rows], stays: Sequence[tuple[bool, ...]], limit: Limit) -> Arrangement:
    """The series of a family out of its metric entries' rows, one below the other.

    `stays`: for each entry, which labels keep their value in the folded set (const ones and cpu).
    """
    everything = [labels for rows in entries for labels in rows.sets]
    alive = dict.fromkeys(everything)
    alive.pop(None, None)
    sets, folded = limit.admit(alive)  # type: ignore[arg-type]  # None is gone
    if folded:
        everything = []
        for rows, stay in zip(entries, stays, strict=True):
            everything += [_other(labels, stay) if labels in folded else labels for labels in rows.sets]
        sets = sorted({labels for labels in everything if labels is not None})
    places: dict[LabelSet | None, int] = dict(zip(sets, range(len(sets)), strict=True))
    places[None] = -1
    group = np.fromiter(map(places.__getitem__, everything), np.intp, len(everything))
    order = np.argsort(group, kind="stable")
    dropped = len(everything) - int(np.count_nonzero(group >= 0))
    order = order[dropped:]
    starts = None if len(sets) == len(order) else np.searchsorted(group[order], np.arange(len(sets)))
    return Arrangement(sets, order, starts, group, len(folded), dropped)


def _other(labels: LabelSet, stays: tuple[bool, ...]) -> LabelSet:
    return tuple(text if stay else OTHER for text, stay in zip(labels, stays, strict=True))
