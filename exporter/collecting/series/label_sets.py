"""Label sets as columns of codes: found, sorted and compared by whole columns, with no object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.hashing import hashes
from exporter.collecting.maps.table import RowIndex
from exporter.collecting.series.interned import Codes, StringTable

LabelSet = tuple[str, ...]  # label values in the order of the label names


class LabelSets:
    """Label sets: one column of codes for each label name; not changed once made. Iterating gives tuples of text."""

    def __init__(self, strings: StringTable, columns: Sequence[Codes], count: int) -> None:
        """`count`: of the label sets, which no column shows where there is no label."""
        self.strings = strings
        self.columns = tuple(columns)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LabelSet]:
        if not self.columns:
            return iter([()] * self._count)
        text = self.strings.text
        return zip(*(map(text, column.tolist()) for column in self.columns), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelSets):
            return NotImplemented
        return (
            self._count == other._count
            and len(self.columns) == len(other.columns)
            and all(map(_equal, self.columns, other.columns))
        )

    __hash__ = None  # type: ignore[assignment]

    def at(self, rows: RowIndex | NDArray[np.bool_]) -> LabelSets:
        """Return the label sets at the rows (or where True), in their order."""
        count = int(np.count_nonzero(rows)) if rows.dtype == bool else len(rows)
        return LabelSets(self.strings, [_at(column, rows, count) for column in self.columns], count)

    def part(self, rows: slice, labels: slice = slice(None)) -> LabelSets:
        """Return rows that are side by side, or some of their labels."""
        columns = [column[rows] for column in self.columns[labels]]
        return LabelSets(self.strings, columns, len(range(self._count)[rows]))

    def sorted_distinct(self) -> tuple[LabelSets, RowIndex]:
        """Return each label set once, sorted by text, and for each row here its row there."""
        if not self._count:
            return self, np.empty(0, np.intp)
        varying = [c for c in self.columns if not is_constant(c) and (c != c[0]).any()]
        if not varying:
            return self.at(np.zeros(1, np.intp)), np.zeros(self._count, np.intp)
        ranks = [self.strings.ranks(column) for column in varying]
        order = np.argsort(ranks[0]) if len(ranks) == 1 else np.lexsort(ranks[::-1])
        new = np.zeros(self._count, bool)
        new[0] = True
        for column in varying:
            ordered = column[order]
            new[1:] |= ordered[1:] != ordered[:-1]
        rows = np.empty(self._count, np.intp)
        rows[order] = np.cumsum(new) - 1
        return self.at(order[new]), rows


def from_texts(strings: StringTable, sets: Sequence[LabelSet], labels: int) -> LabelSets:
    """Return label sets of so many labels as columns."""
    columns = [np.array([strings.code(texts[label]) for texts in sets], np.int64) for label in range(labels)]
    return LabelSets(strings, columns, len(sets))


def together(first: LabelSets, *more: LabelSets) -> LabelSets:
    """Return label sets of the same label names below each other."""
    parts = [sets for sets in (first, *more) if len(sets)]
    if len(parts) <= 1:
        return parts[0] if parts else first
    columns = [_below(columns) for columns in zip(*(sets.columns for sets in parts), strict=True)]
    return LabelSets(first.strings, columns, sum(map(len, parts)))


def constant(code: int, count: int) -> Codes:
    """Return a column of one code. It takes no memory and cannot be written to."""
    return np.broadcast_to(np.int64(code), count)


def is_constant(column: Codes) -> bool:
    return column.strides == (0,)


def _equal(one: Codes, other: Codes) -> bool:
    """Compare columns of one length."""
    if is_constant(one) and is_constant(other) and len(one):
        return bool(one[0] == other[0])
    return one is other or bool((one == other).all())


def _at(column: Codes, rows: RowIndex | NDArray[np.bool_], count: int) -> Codes:
    return constant(int(column[0]), count) if is_constant(column) and len(column) else column[rows]


def _below(columns: Sequence[Codes]) -> Codes:
    if all(is_constant(column) and column[0] == columns[0][0] for column in columns):
        return constant(int(columns[0][0]), sum(map(len, columns)))
    return np.concatenate(columns)


class Index:
    """The row of each label set among those given, all different: a hash table with open addressing, mostly empty."""

    def __init__(self, sets: LabelSets, before: Index | None = None) -> None:
        """`before`: an index of the first of them, if there is one. It must not be asked any more."""
        self.sets = sets
        self._bits = max(3, (4 * len(sets)).bit_length())
        known = 0
        if before is not None and before._bits == self._bits:
            self._table: NDArray[np.int32] = before._table
            known = len(before.sets)
        else:
            self._table = np.full(1 << self._bits, -1, np.int32)
        rows = np.arange(known, len(sets))
        slots = self._slots(sets.at(rows) if known else sets)
        while len(rows):  # each goes on to the next slot until one is free
            free = self._table[slots] < 0
            self._table[slots[free]] = rows[free]  # where two want one, the last has it
            left = np.flatnonzero(self._table[slots] != rows)
            rows, slots = rows[left], self._next(slots[left])

    def find(self, sets: LabelSets) -> RowIndex:
        """Return the row of each label set, -1 where it is not there."""
        found = np.full(len(sets), -1, np.intp)
        if not len(self.sets):
            return found
        slots, rows = self._slots(sets), np.arange(len(sets))
        while len(rows):  # where another has the slot, the next one may have it
            here = self._table[slots]
            taken = here >= 0
            equal = taken & self._equal(here, sets, rows)
            found[rows[equal]] = here[equal]
            left = np.flatnonzero(taken & ~equal)
            rows, slots = rows[left], self._next(slots[left])
        return found

    def _equal(self, here: NDArray[np.int32], sets: LabelSets, rows: RowIndex) -> NDArray[np.bool_]:
        """Return which of the sets' rows are those `here`."""
        equal = np.ones(len(here), bool)
        for mine, theirs in zip(self.sets.columns, sets.columns, strict=True):
            if not (is_constant(mine) and is_constant(theirs) and mine[0] == theirs[0]):
                equal &= mine[here] == (theirs if len(rows) == len(theirs) else theirs[rows])
        return equal

    def _slots(self, sets: LabelSets) -> RowIndex:
        """Return the slot to look at first for each."""
        return (hashes(sets.columns, len(sets)) >> np.uint64(64 - self._bits)).view(np.intp)

    def _next(self, slots: RowIndex) -> RowIndex:
        return (slots + 1) & ((1 << self._bits) - 1)
