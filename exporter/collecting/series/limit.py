"""Label sets of rows -> the series of a family: equal sets made one, and at most max_series of them.

A series is named by its label set, and `Limit` is the one place that says which of them are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.series.interned import Codes
from exporter.collecting.series.label_sets import Index, LabelSets, RowIndex, together
from exporter.collecting.series.labels import Rows

OTHER = "other"
_NONE = np.empty(0, np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """How the rows of a family become its series.

    sets     the label sets of the series, all different, in the order in which they came (those that came together
             sorted); the folded ones ("other") are last
    shown    how many are not "other"
    kept     for each series its place in the arrangement before, -1 for a new one; the others ascend
    group    for each row its place in `sets`, -1 for rows without
    order    the rows that have a series, those of the first series first
    present  the series that have rows, as places in `sets`; None if all have
    starts   where in `order` the rows of each present series begin; None if each has one row
    folded   label sets that went into "other"
    dropped  rows without a label set
    """

    sets: LabelSets
    shown: int
    kept: RowIndex
    group: RowIndex
    order: RowIndex
    present: RowIndex | None
    starts: RowIndex | None
    folded: int
    dropped: int

    def appends_to(self, count: int) -> bool:
        """Whether all of so many series before are here, where they were."""
        return len(self.kept) >= count and bool((self.kept[:count] >= 0).all())  # and so, ascending, 0, 1, 2 ...


def nothing(labels: LabelSets) -> Arrangement:
    """The arrangement of a family before its first collection; `labels` of the same names."""
    return Arrangement(labels.at(_NONE), 0, _NONE, _NONE, _NONE, None, None, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """Which label sets of a family live.

    index   finds them: first those shown, in the order of before and then the new ones, after them those folded
    shown   how many are shown
    places  of each row its place in the index, -1 for rows without a label set
    kept    for each one shown its place before, -1 for a new one
    """

    index: Index
    shown: int
    places: RowIndex
    kept: RowIndex


class Budget:
    """Series of all metrics together (limits.series)."""

    def __init__(self, most: int) -> None:
        self.most = most
        # By who shows them; what a program that was unloaded had is free again.
        self._shown: WeakKeyDictionary[Limit, int] = WeakKeyDictionary()

    def grant(self, limit: Limit, shown: int, wanted: int) -> int:
        """How many of the `wanted` series `limit` may show beside the `shown` ones that it has already."""
        free = self.most - sum(n for other, n in self._shown.items() if other is not limit) - shown
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
        self._index: Index | None = None  # of the label sets that live, first those shown
        self._shown = 0  # how many of them are
        self._places: list[
            tuple[int, RowIndex]
        ] = []  # of the last rows: their number, and of each its place in the index
        self.last: Arrangement | None = None
        self.ended = 0  # label sets that were shown or folded and are gone, so far

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Columns of the codes of all label sets that live."""
        return () if self._index is None else self._index.sets.columns

    def restore(self, sets: LabelSets, folded: int) -> Arrangement:
        """The series that another process showed, the last `folded` of which others fold into: as if they had been
        arranged here, and had no rows."""
        shown = len(sets) - folded
        self._index, self._shown = Index(sets.at(np.arange(shown))), shown
        self.last = Arrangement(sets, shown, np.full(len(sets), -1, np.intp), _NONE, _NONE, _NONE, None, 0, 0)
        return self.last

    def admit(self, entries: Sequence[Rows], held: NDArray[np.bool_]) -> Admission:
        """The label sets of the rows live, and so do those shown that are `held` without a row."""
        rows = together(*(mine.labels for mine in entries))
        known, before = self._index.sets if self._index else rows.at(_NONE), self._shown
        places, unknown = self._known(entries)
        if len(unknown):
            asked = rows.at(unknown)
            found = places[unknown] = self._index.find(asked) if self._index else np.full(len(asked), -1, np.intp)
            unknown, asked = unknown[found < 0], asked.at(found < 0)
        alive = np.ones(len(known), bool)
        if before < len(known) or not held.all():
            alive[:before], alive[before:] = held, False
            alive[places[places >= 0]] = True
        self.ended += len(known) - int(np.count_nonzero(alive))
        stay, stay_folded = np.flatnonzero(alive[:before]), before + np.flatnonzero(alive[before:])
        fresh, where = asked.sorted_distinct() if len(unknown) else (rows.at(_NONE), _NONE)
        room = max(0, min(self._most - len(stay), len(fresh)))
        if self._budget is not None:
            room = self._budget.grant(self, len(stay), room)
        self._shown = len(stay) + room
        if len(stay) < len(known):
            now = np.full(len(known) + 1, -1, np.intp)  # the last one for rows at -1
            now[stay], now[stay_folded] = np.arange(len(stay)), self._shown + np.arange(len(stay_folded))
            places = now[places]
        if self._index is None or len(fresh) or len(stay) + len(stay_folded) < len(known):
            if len(stay) == len(known):
                self._index = Index(together(known, fresh), self._index)
            else:
                admitted, refused = fresh.at(np.arange(room)), fresh.at(np.arange(room, len(fresh)))
                self._index = Index(together(known.at(stay), admitted, known.at(stay_folded), refused))
        # Those not shown are behind those that are not shown any longer.
        places[unknown] = len(stay) + where + np.where(where < room, 0, len(stay_folded))
        self._keep(entries, places)
        return Admission(self._index, self._shown, places, np.concatenate([stay, np.full(room, -1, np.intp)]))

    def _known(self, entries: Sequence[Rows]) -> tuple[RowIndex, RowIndex]:
        """Of each row its place in the index, as far as rows of the last time tell it, -1 elsewhere; and those with a
        label set that are to be looked for."""
        before = self._places if len(self._places) == len(entries) else [(-1, _NONE)] * len(entries)
        places = np.full(sum(map(len, entries)), -1, np.intp)
        end = 0
        for rows, (number, last) in zip(entries, before, strict=True):
            start, end = end, end + len(rows)
            if rows.number == number:
                places[start:end] = last
            elif rows.follows == number and rows.was is not None:
                places[start:end] = np.where(rows.was >= 0, last[rows.was], -1) if len(last) else -1
        has_set = np.concatenate([~rows.missing for rows in entries])
        return places, np.flatnonzero(has_set & (places < 0))

    def _keep(self, entries: Sequence[Rows], places: RowIndex) -> None:
        ends = np.cumsum([len(rows) for rows in entries])
        self._places = [(rows.number, mine) for rows, mine in zip(entries, np.split(places, ends[:-1]), strict=True)]


def arrange(
    entries: Sequence[Rows],
    stays: Sequence[tuple[bool, ...]],
    limit: Limit,
    held: NDArray[np.bool_] | None = None,
) -> Arrangement:
    """The series of a family out of its metric entries' rows, one below the other.

    `stays`: for each entry, which labels keep their value in the folded set (const ones and cpu). `held`: which series
    of the last arrangement with this limit are shown even if they have no row.
    """
    if limit.last is None:
        limit.last = nothing(entries[0].labels)
    before = limit.last
    if held is None:
        held = np.zeros(len(before.sets), bool)
    admission = limit.admit(entries, held[: before.shown])
    shown, places = admission.shown, admission.places
    sets, kept, folded = admission.index.sets, admission.kept, len(admission.index.sets) - shown
    sets = sets.at(np.arange(shown)) if folded else sets
    others = before.sets.at(before.shown + np.flatnonzero(held[before.shown :]))
    if folded or len(others):
        places = places.copy()  # those of the index are kept
        folds = np.flatnonzero(places >= shown)
        stay = np.repeat(np.array(stays, bool).reshape(len(stays), -1), [len(rows) for rows in entries], axis=0)
        into = _others(together(*(rows.labels for rows in entries)).at(folds), stay[folds])
        others, _ = together(others, into).sorted_distinct()
        # A series can be called "other" by itself: then that one takes them in.
        others = others.at(_not_shown(admission.index.find(others), shown))
        mine = Index(others).find(into)
        theirs = admission.index.find(into)
        places[folds] = np.where(_not_shown(theirs, shown), shown + mine, theirs)
        was = Index(before.sets.at(np.arange(before.shown, len(before.sets)))).find(others)
        sets = together(sets, others)
        kept = np.concatenate([kept, np.where(was >= 0, before.shown + was, -1)])
    limit.last = _arrangement(sets, shown, kept, places, folded)
    return limit.last


def _arrangement(sets: LabelSets, shown: int, kept: RowIndex, group: RowIndex, folded: int) -> Arrangement:
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
    return Arrangement(sets, shown, kept, group, order, present, starts, folded, dropped)


def _others(sets: LabelSets, stays: NDArray[np.bool_]) -> LabelSets:
    """What the sets are folded into; `stays`: (sets, labels)."""
    other = sets.words.code(OTHER)
    columns = [np.where(stays[:, place], column, other) for place, column in enumerate(sets.columns)]
    return LabelSets(sets.words, columns, len(sets))


def _not_shown(places: RowIndex, shown: int) -> NDArray[np.bool_]:
    return (places < 0) | (places >= shown)
