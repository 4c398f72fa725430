"""Map descriptors of a program -> tables that read them."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.collecting.maps.draining import Drained
from exporter.collecting.maps.stacks import StackTable
from exporter.collecting.maps.table import Readable, Table
from exporter.kernel import bpf, map_types
from exporter.program import DRAIN_BARRIER, DRAIN_EPOCHS, ODD, Program
from exporter.spec import MapOptions


def open_tables(program: Program, fds: Mapping[str, int], possible_cpus: int) -> dict[str, Readable]:
    """Return a table for each map of the program that has entries to read. The fds stay the caller's."""
    tables: dict[str, Readable] = {}
    for map_ in program.maps:
        if map_.name not in fds:
            continue
        if map_.type == bpf.BPF_MAP_TYPE_STACK_TRACE:
            tables[map_.name] = StackTable(fds[map_.name], map_)
        elif map_.type in map_types.READABLE:
            tables[map_.name] = Table(fds[map_.name], map_, possible_cpus)
    return tables


def with_drained(
    tables: Mapping[str, Readable],
    program: Program,
    options: Mapping[str, MapOptions],
    fds: Mapping[str, int],
    uncleared: Mapping[str, int],
) -> dict[str, Readable]:
    """Return the tables, with one for each pair of maps to be drained. `uncleared`: as in totals_store.Store. OSError
    from the kernel."""
    found = dict(tables)
    for map_ in program.maps:
        first, second = tables.get(map_.name), tables.get(map_.name + ODD)
        if map_.name not in options or not options[map_.name].drain or map_.drain_index is None:
            continue
        if isinstance(first, Table) and isinstance(second, Table):
            found[map_.name] = Drained(
                (first, second),
                fds[DRAIN_EPOCHS],
                map_.drain_index,
                fds[DRAIN_BARRIER],
                uncleared.get(map_.name),
            )
            del found[second.map.name]
    return found
