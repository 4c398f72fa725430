"""One open map -> arrays of its raw keys and values, read by BPF_MAP_LOOKUP_BATCH into buffers that are used again."""

from __future__ import annotations

import errno
import math
import sys
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from exporter.kernel import bpf, map_types
from exporter.program import Map

Bytes = NDArray[np.uint8]
RowIndex = NDArray[np.intp]  # numbers of rows; -1 where there is none

_BYTE_ORDER: Literal["little", "big"] = sys.byteorder
_CHUNK = 4096  # entries asked for at once ...
_CHUNK_BYTES = 1 << 20  # ... and not more than this much of them, unless a bucket is larger
_CURSOR_BYTES = 16  # at least: the kernel writes max(4, key size)


def as_bytes(records: Bytes) -> list[bytes]:
    """Return each row of (n, size) as a bytes object."""
    rows: list[Any] = np.ascontiguousarray(records).view(np.dtype((np.void, records.shape[1]))).ravel().tolist()
    return rows


def same_keys(one: Bytes, other: Bytes) -> bool:
    """Return whether two reads found the same keys in the same order. A table that finds them again gives the same
    array, which is not compared."""
    if one is other or one.shape != other.shape:
        return one is other
    width = math.gcd(one.shape[1], 8)  # comparing so many bytes at once is so many times faster
    return bool((one.view(f"u{width}") == other.view(f"u{width}")).all())


class ReadError(Exception):
    """A map that could not be read to its end; the text names the map."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a map at one read.

    keys    (n, key size); not changed by later reads, and the same array again while the keys stay the same
    values  (n, CPUs, value size), good until the table is read again; one CPU for a map that is not per-CPU, else one
            for each possible CPU and the size rounded up to 8
    """

    keys: Bytes
    values: Bytes

    def __len__(self) -> int:
        return len(self.keys)


class Readable(Protocol):
    """A map as collecting reads it: an open one (Table) or a recorded one."""

    def read(self) -> Entries: ...


class Table:
    """A map that is read scrape after scrape. Not for two threads at once.

    The kernel walks a hash bucket by bucket, each under its lock: a key that stays is read exactly once, whatever is
    inserted or deleted meanwhile.
    """

    def __init__(self, fd: int, map: Map, possible_cpus: int) -> None:  # noqa: A002 (the kernel's word)
        if map.type not in map_types.READABLE:
            raise ReadError(f"read map {map.name}: type {map.type} has no entries to read")
        self.fd = fd
        self.map = map
        percpu = map.type in map_types.PERCPU
        self._cpus = possible_cpus if percpu else 1
        self._value_size = (map.value_size + 7) // 8 * 8 if percpu else map.value_size
        self._entry_bytes = map.key_size + self._cpus * self._value_size
        self._chunk = max(1, min(_CHUNK, map.max_entries, _CHUNK_BYTES // self._entry_bytes))
        # Entries deleted and inserted again during a walk can make more than the map ever holds; twice as many plus a
        # chunk is beyond what a walk of milliseconds meets.
        self._most = 2 * map.max_entries + _CHUNK
        self._batches = True
        self._keys = np.empty((0, map.key_size), np.uint8)
        self._values = np.empty((0, self._cpus, self._value_size), np.uint8)
        self._addresses = (0, 0)  # of keys and values
        self._grow(self._chunk)
        self._stable = self._keys[:0]  # the keys of the last read
        # The kernel reads where it goes on from one cursor and writes where it stopped to the other.
        self._cursors = np.zeros((2, max(_CURSOR_BYTES, map.key_size)), np.uint8)

    def read(self) -> Entries:
        """Return all entries. OSError from the kernel, ReadError if there is no end to them."""
        if self._batches:
            try:
                count = self.read_batches()
                return self._entries(count) if self.map.type != bpf.BPF_MAP_TYPE_LPM_TRIE else self._once(count)
            except OSError as error:
                if error.errno == errno.EINTR:  # a trie whose keys go while it is read, three times over
                    return self._entries(self._walk())
                # Not by version: hash maps have it since 5.6, arrays too, per-CPU arrays since 5.13 (f008d732ab18), and
                # distributions move such things back. A kernel without the command says EINVAL, a map type without it
                # ENOTSUPP.
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, bpf.ENOTSUPP):
                    raise
                self._batches = False
        return self._entries(self._read_indices() if self.map.type in map_types.ARRAYS else self._walk())

    def delete(self, key: bytes) -> bool:
        """Remove an entry; False if it is not there any more. OSError from the kernel: EPERM with a read-only fd."""
        return bpf.map_delete(self.fd, key)

    def _once(self, count: int) -> Entries:
        """Return each key of a trie once, with the value that was read last.

        A trie's batch starts over where the key that it stands on is deleted (generic_map_lookup_batch() goes by
        BPF_MAP_GET_NEXT_KEY), so a key may come twice.
        """
        rows = {key: row for row, key in enumerate(as_bytes(self._keys[:count]))}
        if len(rows) == count:
            return self._entries(count)
        return self._entries(count, np.array(sorted(rows.values())))

    def _entries(self, count: int, rows: RowIndex | slice = slice(None)) -> Entries:
        keys, values = self._keys[:count][rows], self._values[:count][rows]
        if not same_keys(keys, self._stable):
            self._stable = keys.copy()
        return Entries(self._stable, values)

    def read_batches(self) -> int:
        """Read the map from its beginning to its end into the buffers, and return the number of entries."""
        count = 0
        cursor, following = 0, self._cursors[0].ctypes.data
        while True:
            room = min(self._chunk, self._most - count)
            if room <= 0:
                raise ReadError(
                    f"read map {self.map.name}: more than {count} entries, it should hold {self.map.max_entries}"
                )
            self._grow(count + room)
            try:
                got, done = bpf.map_lookup_batch(
                    self.fd,
                    cursor,
                    following,
                    self._addresses[0] + count * self._keys.strides[0],
                    self._addresses[1] + count * self._values.strides[0],
                    room,
                )
            except OSError as error:
                # One bucket holds more than the chunk: ask for more, from the same cursor.
                if error.errno != errno.ENOSPC or self._chunk >= self._most:
                    raise
                self._chunk = min(self._chunk * 2, self._most)
                continue
            count += got
            if done:
                return count
            cursor, following = following, cursor or self._cursors[1].ctypes.data

    def _read_indices(self) -> int:
        """Read an array without batches: look up each index. Entries of an array cannot be deleted."""
        count = self.map.max_entries
        self._grow(count)
        for index in range(count):
            key = index.to_bytes(4, _BYTE_ORDER)
            value = bpf.map_lookup(self.fd, key, self._cpus * self._value_size)
            self._put(index, key, value or b"")
        return count

    def _walk(self) -> int:
        """Read a hash without batches, key after key.

        Where the key of the last step is deleted, the kernel goes back to the first one (BPF_MAP_GET_NEXT_KEY in
        bpf(2)), so keys come twice. Those are skipped, and the number of steps is bounded.
        """
        seen: set[bytes] = set()
        key: bytes | None = None
        count = 0
        for _ in range(8 * self.map.max_entries + 64):
            key = bpf.map_next_key(self.fd, key, self.map.key_size)
            if key is None:
                return count
            if key in seen:
                continue
            value = bpf.map_lookup(self.fd, key, self._cpus * self._value_size)
            if value is None:
                continue  # deleted since
            seen.add(key)
            self._grow(count + 1)
            self._put(count, key, value)
            count += 1
        raise ReadError(
            f"read map {self.map.name}: no end after {count} keys (they are deleted faster than they are read)"
        )

    def _put(self, row: int, key: bytes, value: bytes) -> None:
        self._keys[row] = np.frombuffer(key, np.uint8)
        self._values[row] = np.frombuffer(value, np.uint8).reshape(self._cpus, self._value_size)

    def _grow(self, rows: int) -> None:
        """Make room for `rows` entries and keep what is there. Room doubles: a large map is copied few times."""
        have = len(self._keys)
        if rows <= have:
            return
        rows = max(rows, min(2 * have, self._most))
        keys = np.empty((rows, self._keys.shape[1]), np.uint8)
        values = np.empty((rows, *self._values.shape[1:]), np.uint8)
        keys[:have], values[:have] = self._keys, self._values
        self._keys, self._values = keys, values
        self._addresses = (keys.ctypes.data, values.ctypes.data)
