"""Counters of 32 bits and fewer -> 64-bit totals, by adding up the differences between reads."""

from __future__ import annotations

import numpy as np

from exporter.collecting.maps.columns import Column
from exporter.collecting.maps.key_matcher import KeyMatcher
from exporter.collecting.maps.table import Bytes, same_keys


class Widening:
    """Totals of one narrow counter, cell by cell, in the rows of its map. A key that is gone is forgotten.

    Where a key can be deleted and come back, a value below the last one is a wrap-around only if less than half of the
    range was counted since; else the key is a new one and counts from zero. Between two reads a counter must stay below
    half of its range (2^31: 140 million events a second over 15 s).
    """

    def __init__(self, keys_stay: bool, bits: int = 0, matcher: KeyMatcher | None = None) -> None:
        """`bits`: of a counter in a bit-field, 0 for one that fills its column. `matcher`: of its map."""
        self._matcher = matcher or KeyMatcher()
        self._keys_stay = keys_stay  # arrays: nothing is ever deleted
        self._bits = bits
        self._keys: Bytes | None = None
        self._last: Column | None = None
        self._totals: Column | None = None

    def totals(self, keys: Bytes, column: Column) -> Column:
        """Return the 64-bit totals of `column` (n, ...) as it was read now for the `keys` (n, key size), which must not
        be changed afterwards."""
        unsigned = np.ascontiguousarray(column.astype(column.dtype.newbyteorder("="))).view(f"u{column.dtype.itemsize}")
        bits = self._bits or 8 * unsigned.itemsize
        mask = unsigned.dtype.type((1 << bits) - 1)
        unsigned = unsigned & mask
        if self._keys is None or self._last is None or self._totals is None:
            totals = unsigned.astype(np.uint64)
        else:
            last, totals = self._aligned(keys, unsigned, self._keys, self._last, self._totals)
            difference = (unsigned - last) & mask  # modulo 2^bits, as the counter itself
            if not self._keys_stay:
                started_again = (unsigned < last) & (difference >> (bits - 1) != 0)
                difference = np.where(started_again, unsigned, difference)
                totals = np.where(started_again, 0, totals)
            totals = totals + difference
        self._keys, self._last, self._totals = keys, unsigned, totals
        return np.asarray(totals)

    def _aligned(
        self, keys: Bytes, now: Column, old_keys: Bytes, last: Column, totals: Column
    ) -> tuple[Column, Column]:
        """Return the last values and totals in the order of `keys`; 0 for new keys."""
        if same_keys(keys, old_keys):
            return last, totals
        was = self._matcher.match(keys, old_keys)
        known = was >= 0
        last_here = np.zeros_like(now)
        totals_here = np.zeros(now.shape, np.uint64)
        last_here[known], totals_here[known] = last[was[known]], totals[was[known]]
        return last_here, totals_here
