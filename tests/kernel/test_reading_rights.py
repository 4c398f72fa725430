"""Maps read by a process that has no rights, only descriptors."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from exporter.collecting.maps.table import Table
from exporter.kernel import bpf, cpus, credentials
from exporter.program import Map

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
    child = os.fork()
    if child == 0:
        try:
            table = Table(fd, description, cpus.possible())
            credentials.drop_to(NOBODY, NOBODY, frozenset())
            entries = table.read()
            total = int(entries.values.view("u8").sum())
            os._exit(0 if total == sum(range(100)) * cpus.possible() else 2)
        except BaseException:  # noqa: BLE001 (the child must never return into pytest)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
