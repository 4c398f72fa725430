"""Label sets of rows -> the series of a family: equal sets made one, and at most max_series of them.

A series is named by its label set, and `Limit` alone decides which of them are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.table import RowIndex
from exporter.collecting.series.interned import Codes
from exporter.collecting.series.label_sets import Index, LabelSets, together
from exporter.collecting.series.labels import Rows

OTHER = "other"
_NONE = np.empty(0, np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """The assignment of a family's rows to its series.

    sets      the label sets of the series, all different, in the order in which they came (those that came together
              sorted); the folded ones ("other") are last
    shown     how many are not "other"
    previous  for each series its position in the arrangement before, -1 for a new one; the others ascend
    group     for each row its position in `sets`, -1 for rows without
    order     the rows that have a series, those of the first series first
    present   the series that have rows, as positions in `sets`; None if all have
    starts    where in `order` the rows of each present series begin; None if each has one row
    folded    label sets that went into "other"
    dropped   rows without a label set
    """

    sets: LabelSets
    shown: int
    previous: RowIndex
    group: RowIndex
    order: RowIndex
    present: RowIndex | None
    starts: RowIndex | None
    folded: int
    dropped: int

    def appends_to(self, count: int) -> bool:
        """Return whether all of so many series before are here, where they were."""
        return len(self.previous) >= count and bool((self.previous[:count] >= 0).all())  # ascending, so 0, 1, 2 ...


def nothing(labels: LabelSets) -> Arrangement:
    """Return the arrangement of a family before its first collection; `labels` of the same names."""
    return Arrangement(labels.at(_NONE), 0, _NONE, _NONE, _NONE, None, None, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """The label sets of a family that live.

    index     finds them: first those shown, in the order of before and then the new ones, after them those folded
    shown     how many are shown
    group     of each row its position in the index, -1 for rows without a label set
    previous  for each one shown its position before, -1 for a new one
    """

    index: Index
    shown: int
    group: RowIndex
    previous: RowIndex


class Budget:
    """Series of all metrics together (limits.series)."""

    def __init__(self, most: int) -> None:
        self.most = most
        # By who shows them; the series of a program that was unloaded are free again.
        self._shown: WeakKeyDictionary[Limit, int] = WeakKeyDictionary()

    def grant(self, limit: Limit, shown: int, wanted: int) -> int:
        """Return how many of the `wanted` series `limit` may show beside the `shown` ones that it has already."""
        free = self.most - sum(n for other, n in self._shown.items() if other is not limit) - shown
        granted = max(0, min(wanted, free))
        self._shown[limit] = shown + granted
        return granted


class Limit:
    """Chooses the label sets that a family shows: the first `max_series` stay as long as they live, later ones fold.

    A set once folded stays folded while it lives, even when there is room again: moved out of "other" it would take its
    count with it, and a counter must not go down.
    """

    def __init__(self, max_series: int, budget: Budget | None = None) -> None:
        self._most = max_series
        self._budget = budget
        self._index: Index | None = None  # of the label sets that live, first those shown
        self._shown = 0  # how many of them are
        self.last: Arrangement | None = None
        self.ended = 0  # label sets that were shown or folded and are gone, so far

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Columns of the codes of all label sets that live."""
        return () if self._index is None else self._index.sets.columns

    def restore(self, sets: LabelSets, folded: int) -> Arrangement:
        """Arrange the series that another process showed, as if they had been here and had no rows. Others fold into
        the last `folded` of them."""
        shown = len(sets) - folded
        self._index, self._shown = Index(sets.at(np.arange(shown))), shown
        self.last = Arrangement(sets, shown, np.full(len(sets), -1, np.intp), _NONE, _NONE, _NONE, None, 0, 0)
        return self.last

    def admit(self, entries: Sequence[Rows], stays: NDArray[np.bool_]) -> Admission:
        """Let the label sets of the rows live, and those shown that stay although they have no row."""
        rows = together(*(mine.labels for mine in entries))
        has_set = np.concatenate([~mine.missing for mine in entries])
        known, before = self._index.sets if self._index else rows.at(_NONE), self._shown
        group = self._index.find(rows) if self._index else np.full(len(rows), -1, np.intp)
        unknown = np.flatnonzero(has_set & (group < 0))
        alive = np.ones(len(known), bool)
        if before < len(known) or not stays.all():
            alive[:before], alive[before:] = stays, False
            alive[group[group >= 0]] = True
        self.ended += len(known) - int(np.count_nonzero(alive))
        old, old_folded = np.flatnonzero(alive[:before]), before + np.flatnonzero(alive[before:])
        fresh, where = rows.at(unknown).sorted_distinct() if len(unknown) else (rows.at(_NONE), _NONE)
        room = max(0, min(self._most - len(old), len(fresh)))
        if self._budget is not None:
            room = self._budget.grant(self, len(old), room)
        self._shown = len(old) + room
        if len(old) < len(known):
            now = np.full(len(known) + 1, -1, np.intp)  # the last one for rows at -1
            now[old], now[old_folded] = np.arange(len(old)), self._shown + np.arange(len(old_folded))
            group = now[group]
        if self._index is None or len(fresh) or len(old) + len(old_folded) < len(known):
            if len(old) == len(known):
                self._index = Index(together(known, fresh), self._index)
            else:
                admitted, refused = fresh.at(np.arange(room)), fresh.at(np.arange(room, len(fresh)))
                self._index = Index(together(known.at(old), admitted, known.at(old_folded), refused))
        # Those not shown are behind those that are not shown any longer.
        group[unknown] = len(old) + where + np.where(where < room, 0, len(old_folded))
        return Admission(self._index, self._shown, group, np.concatenate([old, np.full(room, -1, np.intp)]))


def arrange(
    entries: Sequence[Rows],
    unfolded: Sequence[tuple[bool, ...]],
    limit: Limit,
    stays: NDArray[np.bool_] | None = None,
) -> Arrangement:
    """Return the series of a family out of its metric entries' rows, one below the other.

    unfolded  for each entry, which labels keep their value in the folded set (const ones and cpu)
    stays     which series of the last arrangement with this limit are shown even if they have no row
    """
    if limit.last is None:
        limit.last = nothing(entries[0].labels)
    before = limit.last
    if stays is None:
        stays = np.zeros(len(before.sets), bool)
    admission = limit.admit(entries, stays[: before.shown])
    shown, group = admission.shown, admission.group
    sets, previous, folded = admission.index.sets, admission.previous, len(admission.index.sets) - shown
    sets = sets.at(np.arange(shown)) if folded else sets
    others = before.sets.at(before.shown + np.flatnonzero(stays[before.shown :]))
    if folded or len(others):
        folds = np.flatnonzero(group >= shown)
        kept = np.repeat(np.array(unfolded, bool).reshape(len(unfolded), -1), [len(rows) for rows in entries], axis=0)
        into = _others(together(*(rows.labels for rows in entries)).at(folds), kept[folds])
        others, _ = together(others, into).sorted_distinct()
        # A series can be called "other" by itself: then the folded ones are added to that one.
        others = others.at(_not_shown(admission.index.find(others), shown))
        mine = Index(others).find(into)
        theirs = admission.index.find(into)
        group[folds] = np.where(_not_shown(theirs, shown), shown + mine, theirs)
        was = Index(before.sets.at(np.arange(before.shown, len(before.sets)))).find(others)
        sets = together(sets, others)
        previous = np.concatenate([previous, np.where(was >= 0, before.shown + was, -1)])
    limit.last = _arrangement(sets, shown, previous, group, folded)
    return limit.last


def _arrangement(sets: LabelSets, shown: int, previous: RowIndex, group: RowIndex, folded: int) -> Arrangement:
    with_set = np.flatnonzero(group >= 0)
    dropped = len(group) - len(with_set)
    mine = group[with_set] if dropped else group
    rows = np.bincount(mine, minlength=len(sets))
    present = None if rows.all() else np.flatnonzero(rows)
    if len(with_set) == (len(sets) if present is None else len(present)):
        order, starts = np.empty(len(sets), np.intp), None
        order[mine] = with_set
        order = order if present is None else order[present]
    else:
        order = np.argsort(group)[dropped:]  # -1 comes first
        rows = rows if present is None else rows[present]
        starts = np.cumsum(rows) - rows
    return Arrangement(sets, shown, previous, group, order, present, starts, folded, dropped)


def _others(sets: LabelSets, kept: NDArray[np.bool_]) -> LabelSets:
    """Return what the sets are folded into; `kept`: (sets, labels), the labels that keep their value."""
    other = sets.strings.code(OTHER)
    columns = [np.where(kept[:, label], column, other) for label, column in enumerate(sets.columns)]
    return LabelSets(sets.strings, columns, len(sets))


def _not_shown(positions: RowIndex, shown: int) -> NDArray[np.bool_]:
    return (positions < 0) | (positions >= shown)
