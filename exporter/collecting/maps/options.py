"""Options of maps that change what is read from them: `ttl` and `zeros`. Each wraps a table and is read like one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.key_matcher import KeyMatcher
from exporter.collecting.maps.table import Bytes, Entries, Readable, as_bytes, same_keys
from exporter.spec import MapOptions


@runtime_checkable
class Erasable(Readable, Protocol):
    """A map whose entries can be deleted: an open one with a writable descriptor."""

    def delete(self, key: bytes) -> bool: ...


def with_options(
    tables: Mapping[str, Readable], options: Mapping[str, MapOptions], clock: Callable[[], float]
) -> dict[str, Readable]:
    """Return the tables, those with options wrapped. A recorded map keeps its entries, whatever its ttl is."""
    wrapped: dict[str, Readable] = {}
    for name, table in tables.items():
        chosen = options.get(name, _PLAIN)
        if not chosen.zeros:
            wrapped[name] = WithoutZeros(table)
        elif chosen.ttl and isinstance(table, Erasable):
            wrapped[name] = Expiring(table, chosen.ttl, clock)
        else:
            wrapped[name] = table
    return wrapped


_PLAIN = MapOptions()


class WithoutZeros:
    """An array without the entries that have been zero in every read so far."""

    def __init__(self, table: Readable) -> None:
        self._table = table
        self._used: NDArray[np.bool_] = np.zeros(0, bool)

    def read(self) -> Entries:
        entries = self._table.read()
        used = np.asarray(entries.values.any(axis=(1, 2)))
        if len(self._used) == len(used):
            used |= self._used
        self._used = used
        return Entries(entries.keys[used], entries.values[used])


class Expiring:
    """A map whose entries are deleted once they did not change for `ttl` seconds, as far as reads could see.

    An event between the read that finds an entry old and its deletion is lost with it. `expired`: entries that the last
    read deleted.
    """

    def __init__(self, table: Erasable, ttl: float, clock: Callable[[], float]) -> None:
        self._table = table
        self._ttl = ttl
        self._clock = clock
        self._matcher = KeyMatcher()
        self._keys: Bytes | None = None
        self._prints = np.zeros(0, np.uint64)
        self._changed = np.zeros(0)  # when each entry was last seen with another value
        self.expired = 0

    def read(self) -> Entries:
        entries = self._table.read()
        now = self._clock()
        prints = _fingerprints(entries.values)
        changed = self._since(entries.keys, prints, now)
        old = now - changed >= self._ttl
        self.expired = int(np.count_nonzero(old))
        if self.expired:
            for key in as_bytes(entries.keys[old]):
                self._table.delete(key)
            stay = ~old
            entries = Entries(entries.keys[stay], entries.values[stay])
            prints, changed = prints[stay], changed[stay]
        self._keys, self._prints, self._changed = entries.keys, prints, changed
        return entries

    def _since(self, keys: Bytes, prints: NDArray[np.uint64], now: float) -> NDArray[np.float64]:
        """Return since when each entry has had its value."""
        if self._keys is None:
            return np.full(len(keys), now)
        if same_keys(keys, self._keys):
            return np.where(prints == self._prints, self._changed, now)
        was = self._matcher.match(keys, self._keys)
        changed = np.full(len(keys), now)
        known = np.flatnonzero(was >= 0)
        same = known[prints[known] == self._prints[was[known]]]
        changed[same] = self._changed[was[same]]
        return changed


def _fingerprints(values: Bytes) -> NDArray[np.uint64]:
    """Return one number for each entry's value: 8 bytes instead of a copy, which is long in per-CPU maps.

    It is the sum, modulo 2^64, of 64-bit numbers by odd factors: a change of one of them always shows, a change of
    several is missed once in 2^60.
    """
    flat = values.reshape(len(values), math.prod(values.shape[1:]))  # of no entries numpy cannot infer -1
    if flat.shape[1] % 8:
        flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 8)))
    words = np.ascontiguousarray(flat).view(np.uint64)
    factors = np.random.default_rng(words.shape[1]).integers(1 << 63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    return np.asarray(words @ factors)
