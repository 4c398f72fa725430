"""Keys of a map in one read -> where each was in another one, without an object for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.label_sets import hashes
from exporter.collecting.table import Bytes, as_bytes

Places = NDArray[np.intp]


class Matcher:
    """Of one map: several that follow its keys ask for the same two reads, and each read is soon the earlier one."""

    def __init__(self) -> None:
        self._asked: tuple[Bytes, Bytes, Places] | None = None
        self._hashed: list[tuple[Bytes, NDArray[np.uint64], Places]] = []  # of the last two reads

    def places(self, keys: Bytes, before: Bytes) -> Places:
        """For each of `keys` its row in `before`, -1 where it is not there. Both (n, key size), each all different;
        the arrays must not be changed."""
        asked = self._asked
        if asked is None or asked[0] is not keys or asked[1] is not before:
            asked = self._asked = (keys, before, self._found(keys, before))
        return asked[2]

    def _found(self, keys: Bytes, before: Bytes) -> Places:
        places = np.full(len(keys), -1, np.intp)
        if not len(before) or not len(keys):
            return places
        theirs, their_order = self._hashes(before)
        mine, my_order = self._hashes(keys)
        at = np.minimum(np.searchsorted(theirs, mine), len(theirs) - 1)
        rows, candidates = my_order, their_order[at]
        alike = theirs[at] == mine
        rows, candidates = rows[alike], candidates[alike]
        equal = (keys[rows] == before[candidates]).all(axis=1)
        places[rows[equal]] = candidates[equal]
        if not equal.all():  # two keys of one hash: one in 2^64 pairs
            known = {key: row for row, key in enumerate(as_bytes(before))}
            unsure = rows[~equal]
            places[unsure] = [known.get(key, -1) for key in as_bytes(keys[unsure])]
        return places

    def _hashes(self, keys: Bytes) -> tuple[NDArray[np.uint64], Places]:
        """A number for each key, in order, and whose they are."""
        for of, numbers, order in self._hashed:
            if of is keys:
                return numbers, order
        count, size = keys.shape
        words = np.zeros((count, max(1, (size + 7) // 8) * 8), np.uint8)
        words[:, :size] = keys
        numbers = hashes(list(words.view(np.uint64).T), count)
        order = np.argsort(numbers)
        numbers = numbers[order]
        self._hashed = [*self._hashed[-1:], (keys, numbers, order)]
        return numbers, order
