"""The host's present state -> the entries of a map that a program updates from now on (`seed: listening_ports`)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from exporter.kernel import bpf, map_types, sockets
from exporter.kernel.features import Kernel
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Map, Reason

SOURCES: dict[str, Callable[[], dict[int, int]]] = {"listening_ports": sockets.listening_ports}

_ENTRY = struct.Struct("=HI")  # u16 port, u32 sockets that listen on it
_ROUNDS = 5


def reconcile(source: str, layout: Map, fd: int, kernel: Kernel) -> None:
    """Write what differs between the host and the map. RefusedError if it is no hash of u16 port -> u32 count, or too
    small.

    The loader calls it before anything is attached, so that the first event finds every entry, and again afterwards,
    for what changed before the program was attached. Host and map cannot be read in one instant, so this is repeated
    until both agree, at most _ROUNDS times.
    """
    if layout.type not in map_types.HASHES - map_types.PERCPU or (
        layout.key_size,
        layout.value_size,
    ) != (2, 4):
        raise RefusedError(
            Reason.BINDING,
            f"seed {layout.name}: {source} needs a hash of u16 port to u32 count, as BPF_HASH({layout.name}, u16, u32)",
        )
    try:
        for _ in range(_ROUNDS):
            if not _differences_written(SOURCES[source](), fd):
                return
    except OSError as error:
        raise refused(f"seed {layout.name}", error, kernel, Reason.MAP) from error


def _differences_written(wanted: dict[int, int], fd: int) -> int:
    """Write what differs between the host and the map; return the number of entries that differed."""
    found = _entries(fd)
    for port, count in wanted.items():
        if found.get(port) != count:
            bpf.map_update(fd, struct.pack("=H", port), struct.pack("=I", count))
    # A program may leave a port at 0 when its last listener is closed: that is no difference.
    gone = [port for port, count in found.items() if count and not wanted.get(port)]
    for port in gone:
        bpf.map_delete(fd, struct.pack("=H", port))
    return len(gone) + sum(1 for port, count in wanted.items() if found.get(port) != count)


def _entries(fd: int) -> dict[int, int]:
    """Return the map's entries. A walk starts over where its key is deleted meanwhile, and then reads some twice."""
    entries: dict[int, int] = {}
    key = bpf.map_next_key(fd, None, 2)
    steps = 0
    while key is not None and steps < 1 << 17:  # twice as many as there are ports
        value = bpf.map_lookup(fd, key, 4)
        if value is not None:
            port, count = _ENTRY.unpack(key + value)
            entries[port] = count
        key = bpf.map_next_key(fd, key, 2)
        steps += 1
    return entries
