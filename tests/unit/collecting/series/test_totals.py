"""Counters and histograms never fall: keys are evicted, deleted and made again, change their label, or fold; and a
server that was killed goes on from what it had shown."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from exporter.binding import totals_layout
from exporter.binding.bind import bind_all
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.table import Entries
from exporter.collecting.series.totals_store import Store
from exporter.collecting.text.exposition import render
from exporter.decoders import Names
from exporter.kernel import bpf, memfd
from exporter.program import Map, Member, Program, State, Type
from exporter.spec import BucketSpec, LabelSpec, MapOptions, MetricSpec, ProgramSpec

U8, U32, U64 = Type("int", "u8", 1), Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type("struct", "key_t", 8, members=(Member("port", 0, U32), Member("other", 32, U32)))
SLOTS = Type("array", "", 32, element=U64, count=4)
HIST = Type("struct", "hist_t", 40, members=(Member("slots", 0, SLOTS), Member("sum", 256, U64)))
Key = tuple[int, int]


class Held:
    """A map whose entries a test sets: (port, other) -> the numbers of its value, `width` bytes each, CPU by CPU."""

    def __init__(self, width: int = 8, cpus: int = 1) -> None:
        self.width = width
        self.cpus = cpus
        self.rows: dict[Key, tuple[int, ...]] = {}
        self._keys = np.empty((0, 8), np.uint8)
        self._value = width

    def read(self) -> Entries:
        raw = b"".join(struct.pack("=II", *key) for key in self.rows)
        keys = np.frombuffer(raw, np.uint8).reshape(-1, 8)
        if not np.array_equal(keys, self._keys):
            self._keys = keys  # the same array while they stay, as an open map gives it
        values = b"".join(n.to_bytes(self.width, "little") for numbers in self.rows.values() for n in numbers)
        if self.rows:
            self._value = len(values) // (len(self.rows) * self.cpus)
        return Entries(self._keys, np.frombuffer(values, np.uint8).reshape(len(self.rows), self.cpus, self._value))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


PORT = LabelSpec(name="port", field="port")


def counter(**more: object) -> MetricSpec:
    values = {"name": "x_total", "type": "counter", "help": "h", "map": "m", "labels": [PORT], **more}
    return MetricSpec.model_validate(values)


def histogram(**more: object) -> MetricSpec:
    return counter(name="h", type="histogram", buckets=BucketSpec(type="exp2"), **more)


class Exporter:
    """A collector over the contents of maps, that can be killed and made again with the same memory."""

    def __init__(
        self,
        metrics: list[MetricSpec],
        held: Mapping[str, Held],
        value: Type = U64,
        kind: int = bpf.BPF_MAP_TYPE_HASH,
        options: MapOptions | None = None,
    ) -> None:
        maps = tuple(Map(name, kind, 8, value.size, 100, key=KEY, value=value) for name in held)
        self.program = Program("p", State.RUNNING, maps=maps)
        chosen = dict.fromkeys(held, options) if options else {}
        self.spec = ProgramSpec(name="p", variants=[], source=Path("p.c"), text="", metrics=metrics, maps=chosen)
        self.held = held
        self.cpus = tuple(range(next(iter(held.values())).cpus))
        self.plan = totals_layout.layout(bind_all(metrics, maps, chosen), len(self.cpus), 128)
        self.memory = memfd.of_size("totals", self.plan.size)
        self.clock = Clock()
        self.start()

    def start(self) -> None:
        self.collector = ProgramCollector(
            self.program,
            self.spec,
            self.held,
            Names.empty(),
            possible=self.cpus,
            online=lambda: self.cpus,
            store=Store(self.memory, self.plan),
            clock=self.clock,
        )

    def page(self) -> list[str]:
        text = render(self.collector.collect(), openmetrics=False).decode()
        assert self.collector.report.success, self.collector.report.error
        return [line for line in text.split("\n") if line and not line.startswith("#")]

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = render(self.collector.collect(), openmetrics=False).decode()
        assert self.collector.report.success, self.collector.report.error
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def made() -> Iterator[list[Exporter]]:
    """What a test makes, closed afterwards."""
    everything: list[Exporter] = []
    yield everything
    for one in everything:
        os.close(one.memory)


def test_a_series_stays_with_its_total_when_its_key_is_gone_and_goes_on_when_it_is_back(made: list[Exporter]) -> None:
    held = Held()
    made.append(one := Exporter([counter()], {"m": held}))
    held.rows = {(22, 0): (3,), (443, 0): (5,)}
    assert one.page() == ['x_total{port="22"} 3', 'x_total{port="443"} 5']
    del held.rows[22, 0]
    assert one.page() == ['x_total{port="22"} 3', 'x_total{port="443"} 5']
    held.rows[22, 0] = (1,)
    assert one.page() == ['x_total{port="22"} 4', 'x_total{port="443"} 5']
    held.rows[22, 0] = (2,)
    assert one.page() == ['x_total{port="22"} 5', 'x_total{port="443"} 5']


def test_a_key_deleted_and_made_again_between_two_reads_counts_on(made: list[Exporter]) -> None:
    held = Held()
    made.append(one := Exporter([counter()], {"m": held}))
    held.rows = {(22, 0): (30,)}
    assert one.page() == ['x_total{port="22"} 30']
    held.rows = {(22, 0): (7,)}
    assert one.page() == ['x_total{port="22"} 37']


def test_of_several_keys_of_a_series_each_is_carried_for_itself(made: list[Exporter]) -> None:
    """One key goes while another counts more than that one had: the sum of what is there would hide it."""
    held = Held()
    made.append(one := Exporter([counter()], {"m": held}))
    held.rows = {(22, 1): (10,), (22, 2): (1,)}
    assert one.page() == ['x_total{port="22"} 11']
    held.rows = {(22, 2): (100,)}
    assert one.page() == ['x_total{port="22"} 110']


def test_histograms_keep_their_buckets_and_sum(made: list[Exporter]) -> None:
    held = Held()
    made.append(one := Exporter([histogram()], {"m": held}, HIST))
    held.rows = {(22, 0): (1, 2, 3, 4, 100), (23, 0): (1, 0, 0, 0, 1)}
    before = one.samples()
    held.rows = {(23, 0): (1, 0, 0, 0, 1)}
    assert one.samples() == before
    held.rows = {(22, 0): (1, 0, 0, 1, 50), (23, 0): (1, 0, 0, 0, 1)}
    after = {(name, dict(labels).get("le")): value for (name, labels), value in one.samples().items()
             if ("port", "22") in labels}  # fmt: skip
    assert after == {
        ("h_bucket", "1.0"): 2, ("h_bucket", "2.0"): 4, ("h_bucket", "4.0"): 7, ("h_bucket", "+Inf"): 12,
        ("h_count", None): 12, ("h_sum", None): 150,
    }  # fmt: skip


def test_a_histogram_with_its_slot_in_the_key_keeps_each_slot(made: list[Exporter]) -> None:
    held = Held()
    metric = histogram(slot="other", sum_slot=9)
    metric = metric.model_copy(update={"buckets": BucketSpec(type="exp2", min=0, max=2)})
    made.append(one := Exporter([metric], {"m": held}))
    held.rows = {(22, 0): (4,), (22, 2): (5,), (22, 9): (77,)}
    before = one.page()
    assert before[-1] == 'h_sum{port="22"} 77'
    held.rows = {(22, 9): (1,)}
    assert one.page() == [*before[:-1], 'h_sum{port="22"} 78']


def test_a_split_by_cpu_keeps_each_cpu(made: list[Exporter]) -> None:
    held = Held(cpus=2)
    labels = [PORT, LabelSpec(name="cpu", field="cpu")]
    made.append(one := Exporter([counter(labels=labels)], {"m": held}, kind=bpf.BPF_MAP_TYPE_PERCPU_HASH))
    held.rows = {(22, 0): (3, 4)}
    assert one.page() == ['x_total{cpu="0",port="22"} 3', 'x_total{cpu="1",port="22"} 4']
    held.rows = {(22, 0): (5, 1)}
    assert one.page() == ['x_total{cpu="0",port="22"} 5', 'x_total{cpu="1",port="22"} 5']
    held.rows = {}
    assert one.page() == ['x_total{cpu="0",port="22"} 5', 'x_total{cpu="1",port="22"} 5']


def test_what_was_folded_into_other_stays_there(made: list[Exporter]) -> None:
    held = Held()
    made.append(one := Exporter([counter(max_series=1)], {"m": held}))
    held.rows = {(1, 0): (1,), (2, 0): (20,), (3, 0): (300,)}
    assert one.page() == ['x_total{port="1"} 1', 'x_total{port="other"} 320']
    held.rows = {(3, 0): (301,)}
    assert one.page() == ['x_total{port="1"} 1', 'x_total{port="other"} 321']
    held.rows = {}
    assert one.page() == ['x_total{port="1"} 1', 'x_total{port="other"} 321']
    one.start()
    assert one.page() == ['x_total{port="1"} 1', 'x_total{port="other"} 321']
    held.rows = {(9, 0): (1,)}
    assert one.page() == ['x_total{port="1"} 1', 'x_total{port="other"} 322']


def test_narrow_counters_are_widened_and_carried(made: list[Exporter]) -> None:
    held = Held(width=1)
    made.append(one := Exporter([counter()], {"m": held}, U8))
    for number, total in ((200, 200), (30, 286), (140, 396)):
        held.rows = {(22, 0): (number,)}
        assert one.page() == [f'x_total{{port="22"}} {total}']
    held.rows = {}
    assert one.page() == ['x_total{port="22"} 396']
    held.rows = {(22, 0): (5,)}
    assert one.page() == ['x_total{port="22"} 401']
    one.start()
    assert one.page() == ['x_total{port="22"} 401']
    held.rows = {(22, 0): (6,)}
    assert one.page() == ['x_total{port="22"} 402']


def test_a_restarted_server_shows_the_same_series_with_their_totals(made: list[Exporter]) -> None:
    held = Held()
    made.append(one := Exporter([counter()], {"m": held}))
    held.rows = {(22, 0): (3,), (443, 0): (5,)}
    one.page()
    held.rows = {(443, 0): (2,), (80, 0): (1,)}
    before = one.page()
    assert before == ['x_total{port="22"} 3', 'x_total{port="443"} 7', 'x_total{port="80"} 1']
    one.start()
    assert one.page() == before
    held.rows = {(443, 0): (4,), (80, 0): (1,)}
    one.start()
    assert one.page() == ['x_total{port="22"} 3', 'x_total{port="443"} 9', 'x_total{port="80"} 1']


def test_keys_that_go_while_the_server_is_dead_cost_nothing_that_was_shown(made: list[Exporter]) -> None:
    held = Held()
    made.append(one := Exporter([counter()], {"m": held}))
    held.rows = {(22, 0): (30,), (443, 0): (5,)}
    before = one.page()
    held.rows = {(443, 0): (1,)}
    one.start()
    assert one.page() == before
    held.rows = {(22, 0): (1,), (443, 0): (2,)}
    assert one.page() == ['x_total{port="22"} 31', 'x_total{port="443"} 6']


def test_a_series_that_ttl_ended_starts_again_at_0_after_a_restart_too(made: list[Exporter]) -> None:
    held = Held()
    made.append(one := Exporter([counter()], {"m": held}, options=MapOptions(ttl=60.0)))
    held.rows = {(22, 0): (3,), (443, 0): (5,)}
    one.page()
    held.rows = {(443, 0): (6,)}
    one.clock.now += 59
    assert one.page() == ['x_total{port="22"} 3', 'x_total{port="443"} 6']
    one.clock.now += 1
    assert one.page() == ['x_total{port="443"} 6']
    one.start()
    assert one.page() == ['x_total{port="443"} 6']
    held.rows = {(22, 0): (1,), (443, 0): (6,)}
    assert one.page() == ['x_total{port="443"} 6', 'x_total{port="22"} 1']


@pytest.mark.parametrize("seed", range(6))
def test_however_keys_come_go_and_restart_no_sample_falls_and_none_is_lost(made: list[Exporter], seed: int) -> None:
    """Against a model that knows every event: exact while the server lives, never below what was shown when it died."""
    choose = random.Random(seed)
    held, hists = Held(), Held()
    metrics = [counter(max_series=5, value="sum"), histogram(map="h", max_series=4)]
    made.append(one := Exporter(metrics, {"m": held, "h": hists}, HIST))
    for map_ in (held, hists):
        map_._value = HIST.size
    shown: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    gone: set[Key] = (
        set()
    )  # a key that is deleted and has counted more than before by the next read looks as if it stayed
    events = 0
    for _ in range(120):
        for map_ in (held, hists):
            for _ in range(choose.randrange(3)):
                key = (choose.randrange(9), choose.randrange(3))
                if key in gone:
                    continue
                old = map_.rows.get(key, (0, 0, 0, 0, 0))
                new = list(old)
                new[choose.randrange(4)] += 1
                more = choose.randrange(50)
                new[4] += more
                map_.rows[key] = tuple(new)
                events += more if map_ is held else 0
        samples = one.samples()
        assert all(samples[which] >= value for which, value in shown.items())
        total = sum(value for (name, _), value in samples.items() if name == "x_total")
        assert total == events
        shown = samples
        # What was read may go: evicted, deleted, or made again and counted anew.
        gone = set()
        for map_ in (held, hists):
            for key in [key for key in map_.rows if choose.random() < 0.1]:
                del map_.rows[key]
                gone.add(key)
        if choose.random() < 0.05:
            one.start()
            samples = one.samples()
            assert samples.keys() == shown.keys()
            assert all(samples[which] >= value for which, value in shown.items())
            shown = samples


def test_a_family_that_has_no_room_in_the_memory_leaves_the_others_theirs(made: list[Exporter]) -> None:
    held, other = Held(), Held()
    made.append(one := Exporter([counter(), counter(name="y_total", map="o")], {"m": held, "o": other}))
    one.plan = totals_layout.layout(
        bind_all(one.spec.metrics, one.program.maps), 1, 8
    )  # bytes of a label, all that is planned for
    one.memory = memfd.of_size("totals", one.plan.size)
    one.start()
    held.rows, other.rows = {(22, 0): (3,)}, {(1, 0): (4,)}
    one.page()
    with capture_logs() as logs:
        held.rows[2**32 - 1, 0] = (5,)
        assert one.page() == ['x_total{port="22"} 3', 'x_total{port="4294967295"} 5', 'y_total{port="1"} 4']
    assert [(line["event"], line["error"]) for line in logs] == [
        ("totals will not outlive the server", "a label set of 11 bytes where 10 were planned")
    ]
    other.rows = {}
    for _ in range(3):
        one.page()
    one.start()
    assert one.page() == ['x_total{port="22"} 3', 'x_total{port="4294967295"} 5', 'y_total{port="1"} 4']
