"""Every kind of map: filled from user space and from a program, read back by the exporter."""

from __future__ import annotations

import errno
import os
import resource
import struct
from typing import Any

import numpy as np

from exporter.collecting.maps.table import Entries, Table
from exporter.kernel import bpf, cpus, map_types
from exporter.loading import build
from exporter.program import Descriptors, Map
from exporter.spec import ProgramSpec
from tests.matrix.guest import product

KEYS = 700
CALLS = 1009  # calls of getppid(2), counted in every map under the key CALLS_KEY
CALLS_KEY = 800


def values(key: int, cpus_possible: int) -> list[int]:
    """What the test puts in for a key, one number for each CPU; beyond 32 bits so that a cut one shows."""
    return [(key << 33) + cpu + 1 for cpu in range(cpus_possible)]


def read_back(spec: ProgramSpec, on: build.Host) -> dict[str, Any]:
    """By map: {"wrong": the first series that differ, "calls", "batch": the errno that refuses batches, "" if none}."""
    possible = cpus.possible()
    found: dict[str, Any] = {}
    with product.loaded(spec, spec.variants[0].name, on) as (program, fds):
        running = product.running(program, spec, fds)
        for map_ in program.maps:
            if map_.name.startswith("of_"):
                _fill(map_, fds, possible)
        for _ in range(CALLS):
            os.getppid()
        seen = running.scrape()
        for metric in spec.metrics:
            map_ = next(m for m in program.maps if m.name == metric.map)
            percpu = map_.type in map_types.PERCPU
            shown = {int(dict(labels)["key"]): value for labels, value in seen.of(metric.name).items()}
            calls = shown.pop(CALLS_KEY, 0)
            expected = {k: float(sum(values(k, possible)) if percpu else values(k, 1)[0]) for k in range(KEYS)}
            wrong = [f"{k}: {shown.get(k)} not {v}" for k, v in expected.items() if shown.get(k) != v]
            found[map_.name] = {"wrong": wrong[:5], "calls": calls, "batch": _batch(map_, fds, possible)}
    return found


LARGE = 9000  # keys: more than one batch reads
KINDS = {
    "hash": bpf.BPF_MAP_TYPE_HASH,
    "percpu_hash": bpf.BPF_MAP_TYPE_PERCPU_HASH,
    "lru_percpu_hash": bpf.BPF_MAP_TYPE_LRU_PERCPU_HASH,
    "percpu_array": bpf.BPF_MAP_TYPE_PERCPU_ARRAY,
}


def large() -> dict[str, Any]:
    """By kind of map: in how many of five reads something was wrong."""
    found: dict[str, Any] = {}
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # counted before 5.11
    possible = cpus.possible()
    for name, kind in KINDS.items():
        array = kind == bpf.BPF_MAP_TYPE_PERCPU_ARRAY
        fd = bpf.map_create(kind, 4, 8, LARGE if array else 2 * LARGE, name=name)
        try:
            for key in range(LARGE):
                numbers = values(key, possible if kind in map_types.PERCPU else 1)
                bpf.map_update(fd, struct.pack("=I", key), struct.pack(f"={len(numbers)}Q", *numbers))
            table = Table(fd, Map(name, kind, 4, 8, LARGE if array else 2 * LARGE), possible)
            expected = {key: values(key, possible if kind in map_types.PERCPU else 1) for key in range(LARGE)}
            wrong = 0
            for _ in range(5):
                entries = table.read()
                wrong += len(entries) != LARGE or _contents(entries) != expected
            found[name] = {"wrong": wrong}
        finally:
            os.close(fd)
    return found


def _contents(entries: Entries) -> dict[int, list[int]]:
    numbers = entries.values.view(np.uint64)[:, :, 0].tolist()
    return dict(zip(entries.keys.view(np.uint32)[:, 0].tolist(), numbers, strict=True))


def _fill(map_: Map, fds: Descriptors, possible: int) -> None:
    percpu = map_.type in map_types.PERCPU
    for key in range(KEYS):
        numbers = values(key, possible if percpu else 1)
        pair = map_.value_size == 16  # struct pair: a tag, padding, the count
        value = struct.pack("=IxxxxQ", 1, numbers[0]) if pair else struct.pack(f"={len(numbers)}Q", *numbers)
        bpf.map_update(fds.maps[map_.name], struct.pack("=I", key), value)


def _batch(map_: Map, fds: Descriptors, possible: int) -> str:
    """The errno with which this kernel refuses to read this kind of map in batches, "" if it does not."""
    size = map_.value_size if map_.type not in map_types.PERCPU else (map_.value_size + 7) // 8 * 8 * possible
    count = map_.max_entries
    keys, room, cursor = np.zeros(count * 4, np.uint8), np.zeros(count * size, np.uint8), np.zeros(16, np.uint8)
    try:
        bpf.map_lookup_batch(fds.maps[map_.name], 0, cursor.ctypes.data, keys.ctypes.data, room.ctypes.data, count)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ""
