"""Map descriptors of a program -> what reads them."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.binding import READABLE
from exporter.collecting.stacks import StackTable
from exporter.collecting.table import Readable, Table
from exporter.kernel import bpf
from exporter.program import Program


def open_tables(program: Program, fds: Mapping[str, int], possible_cpus: int) -> dict[str, Readable]:
    """A table for each map of the program that has entries to read. The fds stay the caller's."""
    tables: dict[str, Readable] = {}
    for map_ in program.maps:
        if map_.name not in fds:
            continue
        if map_.type == bpf.BPF_MAP_TYPE_STACK_TRACE:
            tables[map_.name] = StackTable(fds[map_.name], map_)
        elif map_.type in READABLE:
            tables[map_.name] = Table(fds[map_.name], map_, possible_cpus)
    return tables
