"""Label sets as columns of codes: found again, put in order and compared by whole columns, with no object for each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import overload

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.series.interned import Codes, StringTable

_WORD = Struct("=q")
FEW = 64  # rows that are worked on one by one: numpy would take longer to begin

LabelSet = tuple[str, ...]  # label values in the order of the label names
RowIndex = NDArray[np.intp]


class LabelSets(Sequence[LabelSet]):
    """Label sets: one column of codes for each label name. A sequence of tuples of text for who asks; not changed."""

    def __init__(self, words: StringTable, columns: Sequence[Codes], count: int) -> None:
        """`count` says how many where there is no label."""
        self.words = words
        self.columns = tuple(columns)
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> LabelSet: ...
    @overload
    def __getitem__(self, place: slice) -> list[LabelSet]: ...
    def __getitem__(self, place: int | slice) -> LabelSet | list[LabelSet]:
        if isinstance(place, slice):
            return list(self.at(np.arange(self._count)[place]))
        return tuple(self.words.text(int(column[place])) for column in self.columns)

    def __iter__(self) -> Iterator[LabelSet]:
        if not self.columns:
            return iter([()] * self._count)
        text = self.words.text
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

    def at(self, places: RowIndex | NDArray[np.bool_]) -> LabelSets:
        """Those at the places (or where True), in their order."""
        count = int(np.count_nonzero(places)) if places.dtype == bool else len(places)
        return LabelSets(self.words, [_at(column, places, count) for column in self.columns], count)

    def part(self, rows: slice) -> LabelSets:
        """Those of some rows side by side."""
        return LabelSets(self.words, [column[rows] for column in self.columns], len(range(self._count)[rows]))

    def sorted_distinct(self) -> tuple[LabelSets, RowIndex]:
        """Each once, in the order of the texts, and where each of these is there."""
        if not self._count:
            return self, np.empty(0, np.intp)
        if self._count <= FEW:
            return self._sorted_distinct_of_few()
        varying = [c for c in self.columns if not is_constant(c) and (c != c[0]).any()]
        if not varying:
            return self.at(np.zeros(1, np.intp)), np.zeros(self._count, np.intp)
        ranks = [self.words.ranks(column) for column in varying]
        order = np.argsort(ranks[0]) if len(ranks) == 1 else np.lexsort(ranks[::-1])
        new = np.zeros(self._count, bool)
        new[0] = True
        for column in varying:
            ordered = column[order]
            new[1:] |= ordered[1:] != ordered[:-1]
        places = np.empty(self._count, np.intp)
        places[order] = np.cumsum(new) - 1
        return self.at(order[new]), places

    def _sorted_distinct_of_few(self) -> tuple[LabelSets, RowIndex]:
        rows = {texts: row for row, texts in enumerate(self)}
        places = {texts: place for place, texts in enumerate(sorted(rows))}
        distinct = self.at(np.array([rows[texts] for texts in places], np.intp))
        return distinct, np.array([places[texts] for texts in self], np.intp)


def from_texts(words: StringTable, sets: Sequence[LabelSet], labels: int) -> LabelSets:
    """Label sets of so many labels."""
    columns = [np.array([words.code(texts[place]) for texts in sets], np.int64) for place in range(labels)]
    return LabelSets(words, columns, len(sets))


def together(first: LabelSets, *more: LabelSets) -> LabelSets:
    """Label sets of the same names below each other."""
    parts = [sets for sets in (first, *more) if len(sets)]
    if len(parts) <= 1:
        return parts[0] if parts else first
    columns = [_below(columns) for columns in zip(*(sets.columns for sets in parts), strict=True)]
    return LabelSets(first.words, columns, sum(map(len, parts)))


def constant(code: int, count: int) -> Codes:
    """A column of one code, which takes no memory; it cannot be written to."""
    # As np.broadcast_to, which takes ten times as long: there are dozens of them in a scrape that finds new keys.
    return np.ndarray(count, np.int64, _WORD.pack(code), strides=(0,))


def is_constant(column: Codes) -> bool:
    return column.strides == (0,)


def _equal(one: Codes, other: Codes) -> bool:
    """Of one length."""
    if is_constant(one) and is_constant(other) and len(one):
        return bool(one[0] == other[0])
    return one is other or bool((one == other).all())


def _at(column: Codes, places: RowIndex | NDArray[np.bool_], count: int) -> Codes:
    return constant(column[0], count) if is_constant(column) and len(column) else column[places]


def _below(columns: Sequence[Codes]) -> Codes:
    if all(is_constant(column) and column[0] == columns[0][0] for column in columns):
        return constant(columns[0][0], sum(map(len, columns)))
    return np.concatenate(columns)


# Odd and not to be guessed: nobody can choose keys that all have one hash.
_FACTORS = np.array([secrets.randbits(63) * 2 + 1 for _ in range(2)], np.uint64)


def hashes(columns: Sequence[NDArray[np.int64] | NDArray[np.uint64]], count: int) -> NDArray[np.uint64]:
    """One number for each row of the columns, equal for equal rows."""
    mixed = np.zeros(count, np.uint64)
    for column in columns:
        mixed ^= mixed >> np.uint64(29)
        mixed += column.view(np.uint64)
        mixed *= _FACTORS[0]
    mixed ^= mixed >> np.uint64(32)
    mixed *= _FACTORS[1]
    return mixed


class Index:
    """Where label sets are among the ones given, all different: a hash table with open addressing, mostly empty."""

    def __init__(self, sets: LabelSets, before: Index | None = None) -> None:
        """`before`: an index of the first of them, if there is one. It is not to be asked any more."""
        self.sets = sets
        self._bits = max(3, (4 * len(sets)).bit_length())
        known = 0
        if before is not None and before._bits == self._bits:
            self._table: NDArray[np.int32] = before._table
            known = len(before.sets)
        else:
            self._table = np.full(1 << self._bits, -1, np.int32)
        places = np.arange(known, len(sets))
        slots = self._slots(sets.at(places) if known else sets)
        while len(places):  # each goes on to the next slot until one is free
            free = self._table[slots] < 0
            self._table[slots[free]] = places[free]  # where two want one, the last has it
            left = np.flatnonzero(self._table[slots] != places)
            places, slots = places[left], self._next(slots[left])

    def find(self, sets: LabelSets) -> RowIndex:
        """The place of each, -1 where there is none."""
        if not len(self.sets):
            return np.full(len(sets), -1, np.intp)
        slots = self._slots(sets)
        here = self._table[slots]
        found = (here >= 0) & self._equal(here, sets.columns)
        places = np.where(found, here, np.intp(-1))
        # Where another has the slot, the next one may have it.
        rows = np.flatnonzero((here >= 0) & ~found)
        slots = self._next(slots[rows])
        while len(rows):
            here = self._table[slots]
            taken = np.flatnonzero(here >= 0)
            rows, slots, here = rows[taken], slots[taken], here[taken]
            equal = self._equal(here, [_at(column, rows, len(rows)) for column in sets.columns])
            places[rows[equal]] = here[equal]
            left = np.flatnonzero(~equal)
            rows, slots = rows[left], self._next(slots[left])
        return places

    def _equal(self, here: NDArray[np.int32], columns: Sequence[Codes]) -> NDArray[np.bool_]:
        """Which of the sets in the columns are those at the places `here`."""
        equal = np.ones(len(here), bool)
        for mine, theirs in zip(self.sets.columns, columns, strict=True):
            if not len(here):
                break  # a constant column of no rows has no code
            if not (is_constant(mine) and is_constant(theirs) and mine[0] == theirs[0]):
                equal &= mine[here] == theirs
        return equal

    def _slots(self, sets: LabelSets) -> RowIndex:
        """Where to look first for each."""
        return (hashes(sets.columns, len(sets)) >> np.uint64(64 - self._bits)).view(np.intp)

    def _next(self, slots: RowIndex) -> RowIndex:
        return (slots + 1) & ((1 << self._bits) - 1)
