"""A map of stack traces -> the frames of one stack by its id (BPF_MAP_TYPE_STACK_TRACE, bpf_get_stackid())."""

from __future__ import annotations

import struct
from typing import Protocol, runtime_checkable

import numpy as np

from exporter.collecting.maps.table import Entries
from exporter.kernel import bpf
from exporter.program import Map


@runtime_checkable
class Stacks(Protocol):
    """A map that has stacks: an open one or a recorded one."""

    def frames(self, id: int) -> bytes | None: ...  # noqa: A002


class StackTable:
    """An open map of stacks. Labels ask for one id after the other; the map has no batches."""

    def __init__(self, fd: int, map: Map) -> None:  # noqa: A002 (the kernel's word)
        self.fd = fd
        self.map = map

    def frames(self, id: int) -> bytes | None:  # noqa: A002
        """Return the raw frames, u64 each, 0 behind the last; None if there is no stack of this id. Never raises: a
        label whose stack cannot be read has no text."""
        try:
            return bpf.map_lookup(self.fd, struct.pack("=I", id), self.map.value_size)
        except OSError:
            return None

    def read(self) -> Entries:
        """Return all stacks with their ids, for the number of entries and for recordings."""
        found: list[tuple[bytes, bytes]] = []
        key = bpf.map_next_key(self.fd, None, 4)
        while key is not None and len(found) <= self.map.max_entries:
            value = bpf.map_lookup(self.fd, key, self.map.value_size)
            if value is not None:
                found.append((key, value))
            key = bpf.map_next_key(self.fd, key, 4)
        keys = np.frombuffer(b"".join(key for key, _ in found), np.uint8)
        values = np.frombuffer(b"".join(value for _, value in found), np.uint8)
        return Entries(keys.reshape(-1, 4), values.reshape(-1, 1, self.map.value_size))
