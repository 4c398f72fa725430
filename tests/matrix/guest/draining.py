"""Maps drained by a server without rights that is killed now and then, while two processes write."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from exporter.binding import totals_layout
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables, with_drained
from exporter.collecting.series.totals_store import Store
from exporter.decoders import Names
from exporter.kernel import bpf_stats, cpus, credentials, features, memfd
from exporter.loading import build
from exporter.program import Descriptors, Program
from exporter.server.process import READS_WITHOUT_RIGHTS
from exporter.spec import ProgramSpec
from tests.kernel.programs import NR_GETPPID
from tests.matrix.guest import product
from tests.matrix.guest.rights import NOBODY
from tests.waiting import child, fork

OURS = 0x5EED  # drained.c
ENTRIES = 256
EACH = 4000  # calls of each writer, every one with another key
KILLS = 4
CALM = 200  # keys at a time that certainly find room

_libc = ctypes.CDLL(None)


def exact(spec: ProgramSpec, on: build.Host) -> dict[str, Any]:
    """By metric what it shows, by map what was `lost`, and what the kernel did not run the program for (`missed`)."""
    with product.loaded(spec, "", on) as (program, fds):
        plan = totals_layout.of_program(program, spec, cpus.possible(), 128)
        memory = memfd.of_size("totals", plan.size)

        def collector() -> ProgramCollector:
            return _collector(program, spec, fds, Store(memory, plan))

        writers = [fork(partial(_write, first, EACH)) for first in (0, EACH)]
        for number in range(KILLS):
            with child(partial(_serve, collector)):
                time.sleep(0.3 + 0.2 * number)
        last = collector()
        while writers:
            writers = [writer for writer in writers if os.waitpid(writer, os.WNOHANG) == (0, 0)]
            last.drain(0.0)
        calm = 2 * EACH
        for number in range(4):
            _write(calm + number * CALM, CALM)
            last.drain(0.0)
        shown = {family.name: int(family.values.sum()) for family in last.collect()}
        assert last.report.success, last.report.error
        [function] = fds.programs.values()
        return {**shown, "lost": last.report.insert_failures, "missed": bpf_stats.read(function).missed}


def _collector(program: Program, spec: ProgramSpec, fds: Descriptors, store: Store) -> ProgramCollector:
    tables = open_tables(program, fds.maps, cpus.possible())
    return ProgramCollector(
        program,
        spec,
        with_drained(tables, program, spec.maps, fds.maps, store.uncleared),
        Names.empty(),
        possible=cpus.possible_numbers(),
        online=cpus.online,
        store=store,
    )


def _write(first: int, count: int) -> None:
    for key in range(first, first + count):
        _libc.syscall(NR_GETPPID, key, OURS)


def _serve(collector: Callable[[], ProgramCollector]) -> NoReturn:
    unneeded = features.version(os.uname().release) >= READS_WITHOUT_RIGHTS
    credentials.drop_to(NOBODY, NOBODY, frozenset() if unneeded else frozenset({credentials.CAP_BPF}))
    mine = collector()
    while True:
        mine.drain(0.0)
        mine.collect()
