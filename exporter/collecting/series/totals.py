"""Values of keys, and of keys that are gone -> totals of series that never fall, also when a server dies.

A series shows the sum of what its keys have counted and of what is carried: the last values of keys that were evicted
or deleted, of keys that were inserted again and so count from zero again, and of keys whose label changed. While keys
and labels stay and no value fell, that takes one comparison.

All numbers are unsigned and modulo 2^64, as the kernel's are. A key that moves from one series to another is carried by
the first and subtracted from the second, which is right again as soon as the key is added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exporter import log
from exporter.collecting.maps.columns import Column
from exporter.collecting.maps.key_matcher import KeyMatcher
from exporter.collecting.maps.table import Bytes, RowIndex, same_keys
from exporter.collecting.series.label_sets import LabelSets
from exporter.collecting.series.limit import Arrangement
from exporter.collecting.series.totals_store import Committed, FamilyStore

_log = log.get()

Numbers = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Rows of a metric entry in one collection, as far as they are added up.

    keys    (rows, size): identify rows from read to read
    values  (rows,) or (rows, slots), not changed afterwards
    sum     (rows,) or None
    slot    (rows,) where it is in the key
    """

    keys: Bytes
    values: Column
    sum: Column | None = None
    slot: Column | None = None

    def at(self, rows: RowIndex | NDArray[np.bool_]) -> Counted:
        return Counted(
            self.keys[rows],
            self.values[rows],
            None if self.sum is None else self.sum[rows],
            None if self.slot is None else self.slot[rows],
        )

    def emptied(self) -> Counted:
        """Return the same rows with nothing counted."""
        none = None if self.sum is None else np.zeros_like(self.sum)
        return replace(self, values=np.zeros_like(self.values), sum=none)

    def fell(self, rows: RowIndex | slice, last: Counted, were: RowIndex | slice) -> NDArray[np.bool_]:
        """Return which of these rows have a number below the one in `last`, where they were at the rows `were`."""
        fell: NDArray[np.bool_] = self.values[rows] < last.values[were]
        if fell.ndim > 1:
            fell = np.any(fell, axis=1)
        return fell if self.sum is None or last.sum is None else fell | (self.sum[rows] < last.sum[were])


_ALL = slice(None)

# Rows and the series of each (-1: none) -> what they add to so many series: (series, width).
Add = Callable[[Counted, RowIndex, int], Numbers]


class _Rows:
    """One metric entry's rows from collection to collection."""

    def __init__(self, matcher: KeyMatcher, add: Add) -> None:
        self._matcher = matcher
        self.add = add
        self._last: Counted | None = None
        self._group = np.empty(0, np.intp)

    def move(self, now: RowIndex) -> None:
        """Follow series to their positions in a new arrangement: `now` has the position of each that was there, -1
        where it ended."""
        self._group = np.where(self._group >= 0, now[self._group], -1) if len(now) else self._group

    def carried(self, counted: Counted, group: RowIndex, series: int) -> Numbers | None:
        """Return what to carry from now on, by series; None for nothing."""
        last, was = self._last, self._group
        self._last, self._group = counted, group
        if last is None:
            return None
        if same_keys(counted.keys, last.keys) and np.array_equal(group, was):
            fell = counted.fell(_ALL, last, _ALL)
            return self.add(last.at(fell), was[fell], series) if fell.any() else None
        matched = self._matcher.match(counted.keys, last.keys)
        here = np.flatnonzero(matched >= 0)
        there = matched[here]
        gone = np.ones(len(was), bool)
        gone[there] = False
        fell = counted.fell(here, last, there)
        moved = (group[here] != was[there]) & ~fell
        gone[there[fell | moved]] = True
        if not gone.any():
            return None
        carried = self.add(last.at(gone), was[gone], series)
        if moved.any():
            carried -= self.add(last.at(there[moved]), group[here[moved]], series)
        return carried


class Totals:
    """Of one family of counters or histograms."""

    def __init__(
        self,
        widths: Sequence[int],
        rows: Sequence[tuple[KeyMatcher, Add, bool]],
        ttl: float = 0.0,
        store: FamilyStore | None = None,
    ) -> None:
        """Begin with no series.

        widths  of the columns that a series shows: 1 of a counter, the buckets and 1 for the sum of a histogram
        rows    for each metric entry the matcher of its keys, the function that adds up its rows, and whether its map
                is drained: then all that is read is carried at once
        ttl     seconds without a change after which a series without a key ends; 0: never
        """
        self._rows = [_Rows(matcher, add) for matcher, add, _ in rows]
        self._drained = [drained for *_, drained in rows]
        self._ttl = ttl
        self._store = store
        self._outlives = True  # totals outlive the server; False once the store had no room for them
        self.ended = 0  # series that ttl ended so far
        self._folded = 0
        self._ends = np.cumsum(widths)
        self._carried: Numbers | None = None  # (series, sum of widths), None for zeros; replaced, never changed
        self._shown = [np.zeros((0, width), np.uint64) for width in widths]
        self._before: Numbers | None = None  # what the previous server had shown, until the first collection
        self._changed = np.empty(0)  # of each series when it last was another number

    def restore(self, committed: Committed, now: float) -> None:
        """Continue from what the previous server committed; the series are those of the arrangement now."""
        self._folded = committed.folded
        self._carried, self._before = committed.carried, committed.shown
        self._shown = self._split(committed.shown)
        self._changed = np.full(len(committed.sets), now)

    def stays(self, now: float) -> NDArray[np.bool_]:
        """Return which series of the last arrangement stay although they have no key."""
        if not self._ttl:
            return np.ones(len(self._changed), bool)
        return np.asarray(now - self._changed < self._ttl)

    def arrange(self, how: Arrangement, now: float) -> None:
        """Move all numbers to the positions of a new arrangement."""
        before, count = len(self._changed), len(how.sets)
        if how.appends_to(before):
            stays: RowIndex | slice = slice(before)
            was = stays
        else:
            stays = np.flatnonzero(how.previous >= 0)
            was = how.previous[stays]
            self.ended += before - len(was)
            positions = np.full(before, -1, np.intp)
            positions[was] = stays
            for rows in self._rows:
                rows.move(positions)

        def moved(numbers: Numbers) -> Numbers:
            there = np.zeros((count, numbers.shape[1]), np.uint64)
            there[stays] = numbers[was]
            return there

        self._carried = None if self._carried is None else moved(self._carried)
        self._before = None if self._before is None else moved(self._before)
        self._shown = [moved(column) for column in self._shown]
        changed = np.full(count, now)
        changed[stays] = self._changed[was]
        self._changed = changed
        self._folded = count - how.shown
        if self._store is not None and self._outlives:
            self._arrange_store(self._store, how.previous, how.sets)

    def _arrange_store(self, store: FamilyStore, previous: RowIndex, sets: LabelSets) -> None:
        try:
            store.arrange(previous, sets.at(np.flatnonzero(previous < 0)))
        except ValueError as error:
            _log.warning("totals will not outlive the server", metric=store.plan.name, error=str(error))
            self._outlives = False

    def take(self, counted: Sequence[Counted], how: Arrangement) -> list[Counted]:
        """Carry what keys that are gone had counted, and return the rows to be added up: those given, but zeros for a
        drained map, whose values are carried."""
        start = 0
        found = []
        for rows, drained, mine in zip(self._rows, self._drained, counted, strict=True):
            group = how.group[start : start + len(mine.keys)]
            start += len(mine.keys)
            more = rows.add(mine, group, len(how.sets)) if drained else rows.carried(mine, group, len(how.sets))
            if more is not None:
                self._carried = more if self._carried is None else self._carried + more
            found.append(mine.emptied() if drained else mine)
        return found

    def total(self, counted: Sequence[Column | None], now: float) -> list[Column]:
        """Return what to show, in columns: what the keys have counted by series (columns that are None are left out)
        and what is carried."""
        given = [column for column in counted if column is not None]
        columns = [unsigned(column) for column in given]
        if self._before is not None:
            # Keys that went while no server ran had counted at least what was shown.
            carried = np.zeros_like(self._before) if self._carried is None else self._carried
            missing = (self._before - np.concatenate(columns, axis=1) - carried).view(np.int64)
            self._carried, self._before = carried + np.maximum(missing, 0).view(np.uint64), None
        if self._carried is not None:
            columns = [mine + more for mine, more in zip(columns, self._split(self._carried), strict=True)]
        if self._ttl:
            rose = [(mine != last).any(axis=1) for mine, last in zip(columns, self._shown, strict=True)]
            self._changed = np.where(np.logical_or.reduce(rose), now, self._changed)
        self._shown = columns
        return [
            mine.view(np.int64 if column.dtype == np.int64 else np.uint64).reshape(column.shape)
            for mine, column in zip(columns, given, strict=True)
        ]

    def _split(self, numbers: Numbers) -> list[Numbers]:
        return np.split(numbers, self._ends[:-1], axis=1)

    def write(self, bank: int) -> None:
        """Write the totals into a bank of the store, which the next commit makes valid."""
        if self._store is not None and self._outlives:
            self._store.write(bank, self._folded, self._carried, self._shown)
        elif self._store is not None:
            self._store.write_nothing(bank)


def unsigned(column: Column) -> Numbers:
    """Return numbers modulo 2^64, as (series, width). Those beyond 64 bits are Python's integers, where entries of both
    signs were added."""
    if column.dtype == object:
        column = np.array([number % 2**64 for number in column.ravel()], np.uint64).reshape(column.shape)
    numbers = np.ascontiguousarray(column).view(np.uint64)
    return numbers if numbers.ndim > 1 else numbers[:, np.newaxis]
