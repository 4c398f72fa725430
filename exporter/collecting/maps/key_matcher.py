"""Keys of a map in one read -> where each was in another one, without an object for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.table import Bytes, as_bytes
from exporter.collecting.series.label_sets import hashes

RowIndex = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Hashed:
    """Keys as `words` of 64 bits, column by column, and a number for each, equal for equal ones."""

    keys: Bytes
    words: tuple[NDArray[np.uint64], ...]
    numbers: NDArray[np.uint64]


class KeyMatcher:
    """Of one map: several that follow its keys ask for the same two reads, and each read is soon the earlier one."""

    def __init__(self) -> None:
        self._asked: tuple[Bytes, Bytes, RowIndex] | None = None
        self._hashed: list[_Hashed] = []  # of the last two reads

    def places(self, keys: Bytes, before: Bytes) -> RowIndex:
        """For each of `keys` its row in `before`, -1 where it is not there. Both (n, key size), each all different;
        the arrays must not be changed."""
        asked = self._asked
        if asked is None or asked[0] is not keys or asked[1] is not before:
            asked = self._asked = (keys, before, self._found(keys, before))
        return asked[2]

    def _found(self, keys: Bytes, before: Bytes) -> RowIndex:
        places = np.full(len(keys), -1, np.intp)
        if not len(before) or not len(keys):
            return places
        theirs, mine = self._hash(before), self._hash(keys)
        # The rows of both, theirs first, in the lowest bits of their numbers: sorted, what is equal is side by side.
        # That takes half the time of sorting one side's rows and searching for the other's.
        count = len(before)
        rows = np.uint64((1 << (count + len(keys)).bit_length()) - 1)
        both = np.concatenate([theirs.numbers, mine.numbers])
        both &= ~rows
        both |= np.arange(len(both), dtype=np.uint64)
        both.sort()
        alike = np.flatnonzero((both[1:] ^ both[:-1]) <= rows)
        one, other = (both[alike] & rows).view(np.intp), (both[alike + 1] & rows).view(np.intp) - count
        pairs = (one < count) & (other >= 0)
        places[other[pairs]] = one[pairs]
        equal = places >= 0
        for ours, others in zip(mine.words, theirs.words, strict=True):
            equal &= ours == others[places]
        places[~equal] = -1
        other = other[other >= 0]
        unsure = other[~equal[other]]
        if len(unsure):  # several keys of one number
            maybe = np.flatnonzero(np.isin(theirs.numbers & ~rows, mine.numbers[unsure] & ~rows))
            known = dict(zip(as_bytes(before[maybe]), maybe.tolist(), strict=True))
            places[unsure] = [known.get(key, -1) for key in as_bytes(keys[unsure])]
        return places

    def _hash(self, keys: Bytes) -> _Hashed:
        for hashed in self._hashed:
            if hashed.keys is keys:
                return hashed
        count, size = keys.shape
        padded = np.ascontiguousarray(keys)
        if size % 8 or not size:
            padded = np.zeros((count, max(1, (size + 7) // 8) * 8), np.uint8)
            padded[:, :size] = keys
        words = tuple(np.ascontiguousarray(padded.view(np.uint64).T))
        self._hashed = [*self._hashed[-1:], _Hashed(keys, words, hashes(words, count))]
        return self._hashed[-1]
