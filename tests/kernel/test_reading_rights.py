"""Maps read by a process that has no rights, only descriptors."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from exporter.collecting.maps.table import Table
from exporter.kernel import bpf, cpus, credentials
from exporter.program import Map
from tests.waiting import in_child

NOBODY = 65534


@pytest.fixture
def percpu_map() -> Iterator[tuple[int, Map]]:
    """A per-CPU hash with 100 entries, opened read-only."""
    description = Map("test_rights", bpf.BPF_MAP_TYPE_PERCPU_HASH, 4, 8, 200)
    fd = bpf.map_create(description.type, 4, 8, 200, name="test_rights")
    for number in range(100):
        bpf.map_update(fd, struct.pack("I", number), struct.pack("Q", number) * cpus.possible())
    readonly = bpf.map_fd_by_id(bpf.map_info(fd).id, bpf.BPF_F_RDONLY)
    yield readonly, description
    os.close(readonly)
    os.close(fd)


def test_a_process_without_any_right_reads_maps_by_descriptor(percpu_map: tuple[int, Map]) -> None:
    fd, description = percpu_map

    def total() -> int:
        table = Table(fd, description, cpus.possible())
        credentials.drop_to(NOBODY, NOBODY, frozenset())
        return int(table.read().values.view("u8").sum())

    assert in_child(total) == sum(range(100)) * cpus.possible()
