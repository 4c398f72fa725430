"""A pair of maps that programs count in by turns -> each entry once: read when no program uses its map, then deleted.

The programs read from a map of epochs which one is live (ODD() in programs/include/exporter.h). Turning the epoch makes
the other one live, and an update of a map of maps waits for every program that read the epoch before. So what is read
then is complete, and nothing is counted between the read and the deletion.

The server commits what it counted before it deletes it. Killed anywhere, it leaves one of three things: the resting map
empty; or full and not counted; or full and committed as counted, which the memory of totals says.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from exporter.collecting.maps.table import Entries, Table
from exporter.kernel import bpf
from exporter.kernel.bpf_delete import map_delete_batch

_NUMBER = struct.Struct("=I")


class Drained:
    """One pair, read like a map. Not for two threads.

    half    which of the pair was read last: its entries are there until `clear`
    behind  whether the resting one may hold entries that are not counted
    """

    def __init__(
        self, pair: tuple[Table, Table], epochs: int, index: int, barrier: int, uncleared: int | None = None
    ) -> None:
        """Read what a previous server left. OSError from the kernel.

        epochs, barrier  descriptors
        index            of the pair among the epochs
        uncleared        the half that a previous server has committed and not cleared
        """
        self._pair = pair
        self._epochs = epochs
        self._key = _NUMBER.pack(index)
        self._barrier = barrier
        self.half = 1 - self._live()
        self.behind = True
        self._left = False  # whether every program has left the resting map
        self._counted = False  # whether the entries of the last read are counted and could not be deleted
        self._wait()
        self._entries = pair[self.half].read()
        if uncleared == self.half:
            self.clear()
        self.behind = self.behind and len(self._entries) > 0

    @staticmethod
    def rest(pairs: Sequence[Drained]) -> None:
        """Make the other half of each pair live, and wait once for all programs that count in the half before, which is
        complete then. Pairs of one program."""
        for pair in pairs:
            pair._turn()
        if pairs:
            pairs[0]._wait()
        for pair in pairs:
            pair._left = True

    def read(self) -> Entries:
        """Return what was counted since the last read; if a previous server left something, only that."""
        if self._counted or not self._left:
            self.rest([self])
        self._entries = self._pair[self.half].read()
        return self._entries

    def clear(self) -> None:
        """Delete the entries of the last read, which are counted."""
        self._counted = True
        keys, table = self._entries.keys, self._pair[self.half]
        if len(keys):
            map_delete_batch(table.fd, keys.ctypes.data, keys.shape[1], len(keys))
        self.behind = self._left = self._counted = False

    def fill(self) -> float:
        """Return how full the live map is, 0 to 1; or the resting one, where it has to be read first."""
        table = self._pair[self.half if self.behind else self._live()]
        return len(table.read()) / table.map.max_entries

    def _turn(self) -> None:
        if self._counted:
            self.clear()
        if not self.behind:
            self.half = self._live()
            bpf.map_update(self._epochs, self._key, _NUMBER.pack(1 - self.half))
            self.behind = True

    def _live(self) -> int:
        """Return which of the pair the programs count in."""
        epoch = bpf.map_lookup(self._epochs, self._key, _NUMBER.size)
        return int(_NUMBER.unpack(epoch or bytes(_NUMBER.size))[0] & 1)

    def _wait(self) -> None:
        """Wait for every program that read the epoch before now."""
        bpf.map_update(self._barrier, _NUMBER.pack(0), _NUMBER.pack(self._epochs))
