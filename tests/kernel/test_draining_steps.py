"""A server that dies between two steps of draining: the next one counts each event once."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from exporter.binding import totals_layout
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps import draining
from exporter.collecting.maps.draining import Drained
from exporter.collecting.maps.open import open_tables, with_drained
from exporter.collecting.metric import FamilyCollector
from exporter.collecting.series.totals_store import Store
from exporter.decoders import Names
from exporter.kernel import bpf, memfd
from exporter.kernel.features import Kernel
from exporter.loading import barrier
from exporter.program import DRAIN_EPOCHS, ODD, Map, Member, Program, State, Type
from exporter.spec import LabelSpec, MapOptions, MetricSpec, ProgramSpec

U32, U64 = Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type("struct", "hit", 8, members=(Member("group", 0, U32), Member("id", 32, U32)))
HITS = Map("hits", bpf.BPF_MAP_TYPE_HASH, 8, 8, 512, key=KEY, value=U64, drain_index=0)
MAPS = (
    HITS,
    Map(HITS.name + ODD, bpf.BPF_MAP_TYPE_HASH, 8, 8, 512, key=KEY, value=U64),
    Map(DRAIN_EPOCHS, bpf.BPF_MAP_TYPE_ARRAY, 4, 4, 1),
)
SPEC = ProgramSpec(
    name="p",
    variants=[],
    source=Path("p.c"),
    text="",
    maps={"hits": MapOptions(drain=True)},
    metrics=[
        MetricSpec(
            name="hits_total", type="counter", help="h", map="hits", labels=[LabelSpec(name="group", field="group")]
        )
    ],
)


class Died(BaseException):
    """What no part of a collection catches."""


class Host:
    """The maps, which the test counts in as a program does, the memory, and servers that come and go."""

    def __init__(self, kernel: Kernel) -> None:
        self.fds = {m.name: bpf.map_create(m.type, m.key_size, m.value_size, m.max_entries, name=m.name) for m in MAPS}
        barrier.add(self.fds, kernel)
        self.program = Program("p", State.RUNNING, maps=MAPS)
        self.plan = totals_layout.of_program(self.program, SPEC, 1, 128)
        self.memory = memfd.of_size("totals", self.plan.size)
        self.events = 0
        self._ids = itertools.count()

    def count(self, events: int) -> None:
        """Each under a key of its own, in the half that is live."""
        epoch = bpf.map_lookup(self.fds[DRAIN_EPOCHS], bytes(4), 4)
        assert epoch
        live = self.fds["hits" + (ODD if epoch[0] & 1 else "")]
        for _ in range(events):
            bpf.map_update(
                live, struct.pack("=II", self.events % 3, next(self._ids)), struct.pack("=Q", 1), bpf.BPF_NOEXIST
            )
            self.events += 1

    def server(self) -> ProgramCollector:
        store = Store(self.memory, self.plan)
        return ProgramCollector(
            self.program,
            SPEC,
            with_drained(open_tables(self.program, self.fds, 1), self.program, SPEC.maps, self.fds, store.uncleared),
            Names.empty(),
            possible=(0,),
            online=lambda: (0,),
            store=store,
        )

    def shown(self, server: ProgramCollector) -> int:
        [family] = server.collect()
        assert server.report.success, server.report.error
        return int(family.values.sum())


@pytest.fixture
def host() -> Iterator[Host]:
    with ExitStack() as closing:
        made = Host(Kernel())
        for fd in (*made.fds.values(), made.memory):
            closing.callback(os.close, fd)
        yield made


STEPS = {
    "the epoch is turned": (Drained, "_wait"),
    "the half that rests is read": (ProgramCollector, "_commit"),
    "the totals are committed": (Drained, "clear"),
    "the half is emptied": (Store, "cleared"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_server_that_dies_when(host: Host, step: str, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> NoReturn:
        raise Died

    host.count(23)
    server = host.server()
    for _ in range(rounds):
        assert host.shown(server) == host.events
        host.count(7)
    place, method = STEPS[step]
    with monkeypatch.context() as patched:
        patched.setattr(place, method, die)
        with pytest.raises(Died):
            server.collect()
    host.count(5)
    for _ in range(2):
        assert host.shown(host.server()) == host.events
        host.count(3)
    server = host.server()
    assert host.shown(server) == host.events
    assert host.shown(server) == host.events
    assert bpf.map_next_key(host.fds["hits"], None, 8) is None
    assert bpf.map_next_key(host.fds["hits" + ODD], None, 8) is None


def test_what_nobody_could_count_is_there_next_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("a map of another kind could not be read")

    host.count(23)
    server = host.server()
    with monkeypatch.context() as patched:
        patched.setattr(FamilyCollector, "collect", fail)
        for _ in range(2):
            assert server.collect() == []
            assert "a map of another kind" in server.report.error
            host.count(7)
    assert host.shown(server) == 23  # that half alone: the other one has been live
    assert host.shown(server) == host.events


def test_what_could_not_be_deleted_is_not_counted_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(12, "Cannot allocate memory")

    host.count(23)
    server = host.server()
    with monkeypatch.context() as patched:
        patched.setattr(draining, "map_delete_batch", refuse)
        server.collect()
        assert "Cannot allocate memory" in server.report.error
        host.count(7)
        server.collect()
        assert not server.report.success
    assert host.shown(server) == host.events
    assert host.shown(host.server()) == host.events


def test_a_server_that_dies_while_it_takes_over_costs_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Committed and not emptied; the next one dies before it has emptied that half, and the one after it as well."""

    def die(*_: object) -> NoReturn:
        raise Died

    host.count(11)
    server = host.server()
    with monkeypatch.context() as patched:
        patched.setattr(Drained, "clear", die)
        with pytest.raises(Died):
            server.collect()
        for _ in range(2):
            host.count(4)
            with pytest.raises(Died):
                host.server()
    assert host.shown(host.server()) == host.events
