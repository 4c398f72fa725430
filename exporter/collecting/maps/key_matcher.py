"""Keys of a map in one read -> the row that each had in another read, without a Python object for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.hashing import hashes
from exporter.collecting.maps.table import Bytes, RowIndex, as_bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Hashed:
    """Keys, the same as columns of 64-bit numbers, and the hash of each key."""

    keys: Bytes
    columns: tuple[NDArray[np.uint64], ...]
    hashes: NDArray[np.uint64]


class KeyMatcher:
    """Matches the keys of one map. The last answer is kept, because several users ask for the same two reads; the
    hashes of two reads are, because each read is soon the earlier one."""

    def __init__(self) -> None:
        self._asked: tuple[Bytes, Bytes, RowIndex] | None = None
        self._hashed: list[_Hashed] = []  # of the last two reads

    def match(self, keys: Bytes, before: Bytes) -> RowIndex:
        """Return for each of `keys` its row in `before`, -1 where it is not there. Both are (n, key size), with each
        key once; the arrays must not be changed afterwards."""
        asked = self._asked
        if asked is None or asked[0] is not keys or asked[1] is not before:
            asked = self._asked = (keys, before, self._found(keys, before))
        return asked[2]

    def _found(self, keys: Bytes, before: Bytes) -> RowIndex:
        found = np.full(len(keys), -1, np.intp)
        if not len(before) or not len(keys):
            return found
        theirs, mine = self._hash(before), self._hash(keys)
        # The row numbers of both, those of `before` first, replace the lowest bits of the hashes: after sorting, equal
        # hashes are side by side. That takes half the time of sorting one side and searching for the other.
        count = len(before)
        low = np.uint64((1 << (count + len(keys)).bit_length()) - 1)
        both = np.concatenate([theirs.hashes, mine.hashes])
        both &= ~low
        both |= np.arange(len(both), dtype=np.uint64)
        both.sort()
        alike = np.flatnonzero((both[1:] ^ both[:-1]) <= low)
        one, other = (both[alike] & low).view(np.intp), (both[alike + 1] & low).view(np.intp) - count
        pairs = (one < count) & (other >= 0)
        found[other[pairs]] = one[pairs]
        equal = found >= 0
        for ours, others in zip(mine.columns, theirs.columns, strict=True):
            equal &= ours == others[found]
        found[~equal] = -1
        other = other[other >= 0]
        unsure = other[~equal[other]]
        if len(unsure):  # several keys have one hash
            maybe = np.flatnonzero(np.isin(theirs.hashes & ~low, mine.hashes[unsure] & ~low))
            known = dict(zip(as_bytes(before[maybe]), maybe.tolist(), strict=True))
            found[unsure] = [known.get(key, -1) for key in as_bytes(keys[unsure])]
        return found

    def _hash(self, keys: Bytes) -> _Hashed:
        for hashed in self._hashed:
            if hashed.keys is keys:
                return hashed
        count, size = keys.shape
        padded = np.ascontiguousarray(keys)
        if size % 8 or not size:
            padded = np.zeros((count, max(1, (size + 7) // 8) * 8), np.uint8)
            padded[:, :size] = keys
        columns = tuple(np.ascontiguousarray(padded.view(np.uint64).T))
        self._hashed = [*self._hashed[-1:], _Hashed(keys, columns, hashes(columns, count))]
        return self._hashed[-1]
