"""One open map -> arrays of its raw keys and values, read by BPF_MAP_LOOKUP_BATCH into buffers that are used again."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.second_reader import Part, second_reader
from exporter.kernel import bpf, map_types
from exporter.program import Map

Bytes = NDArray[np.uint8]

_BYTE_ORDER: Literal["little", "big"] = sys.byteorder
_CHUNK = 4096  # entries asked for at once ...
_CHUNK_BYTES = 1 << 20  # ... and not more than this much of them, unless a bucket is larger
_ALL = slice(None)
COMPARED = 1 << 20  # bytes of values that are kept to be compared with those of the next read
_CUT_BYTES = 1 << 10  # of records are cut before numpy has found a type for them
_FEW_BYTES = 64 << 10  # are copied and compared before numpy has found out how to compare them
_STILL = 2  # reads that found the same keys: then the next one will, most likely
_WORTH = 8192  # entries: fewer are read before another thread is awake
_BEGINNING = -1  # a cursor's place for none
_FIRST, _SECOND = (0, 1), (2, 3)  # places of the cursors of who reads from the beginning, and from the middle
_CURSOR_BYTES = 16  # at least: the kernel writes max(4, key size)


def as_bytes(records: Bytes) -> list[bytes]:
    """Each row of (n, size) as a bytes object."""
    size = records.shape[1]
    if 0 < records.size <= _CUT_BYTES:
        text = records.tobytes()
        return [text[start : start + size] for start in range(0, len(text), size)]
    rows: list[Any] = np.ascontiguousarray(records).view(np.dtype((np.void, size))).ravel().tolist()
    return rows


def same_keys(one: Bytes, other: Bytes) -> bool:
    """Whether two reads found the same keys in the same order. A table that finds them again gives the same array."""
    if one is other or one.shape != other.shape:
        return one is other
    if one.nbytes <= _FEW_BYTES:
        return one.tobytes() == other.tobytes()
    word = math.gcd(one.shape[1], 8)  # comparing by words is so many times faster than by bytes
    return bool((one.view(f"u{word}") == other.view(f"u{word}")).all())


def _middle(marks: Sequence[tuple[int, Bytes]], count: int) -> tuple[int, Bytes] | None:
    """Of the places between chunks the one that is nearest to the middle; None where it is not worth it."""
    if count < _WORTH or not marks or len(os.sched_getaffinity(0)) < 2:
        return None
    return min(marks, key=lambda mark: abs(2 * mark[0] - count))


def _other(cursors: tuple[int, int], cursor: int) -> int:
    """Of the two places of one walk the one that `cursor` is not."""
    return cursors[1] if cursor == cursors[0] else cursors[0]


def _flat(values: Bytes) -> Bytes:
    return values.reshape(len(values), values.shape[1] * values.shape[2])


class ReadError(Exception):
    """A map that could not be read to its end; the text names the map."""


@dataclass(frozen=True, slots=True)
class Entries:
    """What a map held. `keys`: (n, key size); `values`: (n, CPUs, value size), one CPU for a map that is not per-CPU;
    of a per-CPU map one for each possible CPU and the size rounded up to 8. The keys are not changed by later reads,
    and the same array is given again while they stay the same; the values are good until the table is read again.
    `same`: both are what the read before found (False where nobody compared)."""

    keys: Bytes
    values: Bytes
    same: bool = False

    def __len__(self) -> int:
        return len(self.keys)


class Readable(Protocol):
    """What collecting needs of a map: an open one (Table) or a recorded one."""

    def read(self) -> Entries: ...


class Table:
    """A map being read, scrape after scrape. Not for two threads at once.

    Hash maps are walked bucket by bucket, each under its lock: a key that stays is read exactly once, whatever is
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
        # Entries deleted and inserted again while we walk can make more than the map ever holds; twice as many plus a
        # chunk is beyond what a walk of milliseconds meets.
        self._most = 2 * map.max_entries + _CHUNK
        self._batches = True
        self._keys = np.empty((0, map.key_size), np.uint8)
        self._values = np.empty((0, self._cpus, self._value_size), np.uint8)
        self._before: Bytes | None = None  # a buffer like `_values`, with those of the read before where they are few
        self._before_address = 0
        self._whole = False  # whether the last read came to its end, and what it gave is what is in the buffers
        self._addresses = (0, 0)  # of keys and values
        self._grow(self._chunk)
        self._stable = self._keys[:0]  # the keys of the last read
        self._still = 0  # reads in a row that found the keys of the one before
        self._middle: tuple[int, Bytes] | None = None  # rows in front of it, and its cursor
        self._cursors = np.zeros((4, max(_CURSOR_BYTES, map.key_size)), np.uint8)
        self._cursor_addresses = [row.ctypes.data for row in self._cursors]

    def read(self) -> Entries:
        """All entries. OSError from the kernel, ReadError if there is no end to them."""
        self._keep_values()
        if self._batches:
            try:
                count = self._read_batches()
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

    def _once(self, count: int) -> Entries:
        """A trie's batch starts over where the key that it stands on is deleted (generic_map_lookup_batch() goes by
        BPF_MAP_GET_NEXT_KEY): a key may come twice, and the later value is the newer."""
        rows = {key: row for row, key in enumerate(as_bytes(self._keys[:count]))}
        if len(rows) == count:
            return self._entries(count)
        return self._entries(count, np.array(sorted(rows.values())))

    def delete(self, key: bytes) -> bool:
        """Remove an entry; False if it is not there any more. OSError from the kernel: EPERM with a read-only fd."""
        return bpf.map_delete(self.fd, key)

    def _entries(self, count: int, rows: NDArray[np.intp] | slice = _ALL) -> Entries:
        keys, values = self._keys[:count][rows], self._values[:count][rows]
        before, self._whole = self._before, rows is _ALL
        if not same_keys(keys, self._stable):
            self._stable, self._still = keys.copy(), 0
            return Entries(self._stable, values)
        self._still += 1
        same = self._whole and before is not None and same_keys(_flat(values), _flat(before[:count]))
        return Entries(self._stable, values, same)

    def _keep_values(self) -> None:
        """Before a read: it is not to write over what it is compared with."""
        whole, self._whole = self._whole, False
        if not whole or len(self._stable) * self._cpus * self._value_size > COMPARED:
            self._before = None
            return
        other, address = self._before, self._before_address
        if other is None or len(other) < len(self._values):
            other = np.empty_like(self._values)
            address = other.ctypes.data
        keys, self._before_address = self._addresses
        self._before, self._values, self._addresses = self._values, other, (keys, address)

    def _read_batches(self) -> int:
        if self._middle is not None and self._still >= _STILL:
            count = self._read_halves(*self._middle)
            if count is not None:
                return count
        return self._read_through()

    def _read_through(self) -> int:
        """From the beginning to the end; and remember where its middle was."""
        count = 0
        cursor = _BEGINNING
        half = len(self._stable) // 2 if len(self._stable) >= _WORTH else 0
        marks: list[tuple[int, Bytes]] = []
        while True:
            room = whole = min(self._chunk, self._most - count)
            if count < half:
                room = min(whole, half - count)  # a chunk ends in the middle
            if room <= 0:
                raise ReadError(
                    f"read map {self.map.name}: more than {count} entries, it should hold {self.map.max_entries}"
                )
            self._grow(count + room)
            following = _other(_FIRST, cursor)
            try:
                got, done = self._batch(cursor, following, count, room)
            except OSError as error:
                # One bucket holds more than the chunk: ask for more, from the same place.
                if error.errno == errno.ENOSPC and room < whole:
                    half = 0
                    continue
                if error.errno != errno.ENOSPC or self._chunk >= self._most:
                    raise
                self._chunk = min(self._chunk * 2, self._most)
                continue
            count += got
            if done:
                self._middle = _middle(marks, count) if self.map.type != bpf.BPF_MAP_TYPE_LPM_TRIE else None
                return count
            cursor = following
            marks.append((count, self._cursors[cursor].copy()))

    def _read_halves(self, rows: int, middle: Bytes) -> int | None:
        """From the beginning and from the middle at once, on two CPUs: `rows` were in front of it in the last read.

        Copying is nearly all that a scrape of a large map takes, and the kernel does it on one CPU a call. Where keys
        come and go the first half ends elsewhere: None, and the read is for nothing.
        """
        self._cursors[_SECOND[0]] = middle
        reader = second_reader()
        if not reader.begin(lambda: self._read_part(_SECOND, _SECOND[0], rows, len(self._keys))):
            return None
        try:
            first = self._read_part(_FIRST, _BEGINNING, 0, rows)
        finally:
            second = reader.result()  # in any case: it writes into the same buffers
        if first is None or second is None:
            return None
        (count, cursor), (end, goes_on) = first, second
        if count != rows or cursor is None or goes_on is not None or (self._cursors[cursor] != middle).any():
            return None
        return end

    def _read_part(self, cursors: tuple[int, int], cursor: int, row: int, end: int) -> Part:
        """Into the rows from `row` to `end`, or until the map ends: the row behind the last one, and the cursor of
        where it would go on, None at the end of the map. None where the kernel says no."""
        try:
            while row < end:
                following = _other(cursors, cursor)
                got, done = self._batch(cursor, following, row, min(self._chunk, end - row))
                row += got
                if done:
                    return row, None
                cursor = following
        except OSError:
            return None
        return row, cursor

    def _batch(self, cursor: int, following: int, row: int, room: int) -> tuple[int, bool]:
        """Cursors by their place; what is read goes to the buffers, from the row on."""
        return bpf.map_lookup_batch(
            self.fd,
            0 if cursor == _BEGINNING else self._cursor_addresses[cursor],
            self._cursor_addresses[following],
            self._addresses[0] + row * self._keys.strides[0],
            self._addresses[1] + row * self._values.strides[0],
            room,
        )

    def _read_indices(self) -> int:
        """An array without batch: look up each index; they cannot be deleted."""
        count = self.map.max_entries
        self._grow(count)
        for index in range(count):
            key = index.to_bytes(4, _BYTE_ORDER)
            value = bpf.map_lookup(self.fd, key, self._cpus * self._value_size)
            self._put(index, key, value or b"")
        return count

    def _walk(self) -> int:
        """A hash without batch: key after key. Deleting the key we stand on sends the kernel back to the first one
        (BPF_MAP_GET_NEXT_KEY in bpf(2)), so keys come twice; those are passed over, and the steps are bounded."""
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
        """Room for `rows` entries, keeping what is there; doubled, so that a large map is copied few times."""
        have = len(self._keys)
        if rows <= have:
            return
        rows = max(rows, min(2 * have, self._most))
        keys = np.empty((rows, self._keys.shape[1]), np.uint8)
        values = np.empty((rows, *self._values.shape[1:]), np.uint8)
        keys[:have], values[:have] = self._keys, self._values
        self._keys, self._values = keys, values
        self._addresses = (keys.ctypes.data, values.ctypes.data)
