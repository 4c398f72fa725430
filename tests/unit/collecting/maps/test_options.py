"""`ttl` and `zeros`: what is left out of a map's entries, when entries are deleted, and how their series end."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from exporter.binding.bind import BindingError, bind_all
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.options import Expiring, WithoutZeros
from exporter.collecting.maps.table import Entries
from exporter.collecting.text.exposition import render
from exporter.decoders import Names
from exporter.kernel import bpf
from exporter.program import Map, Member, Program, State, Type
from exporter.spec import LabelSpec, MapOptions, MetricSpec, ProgramSpec

U32, U64 = Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type("struct", "key_t", 4, members=(Member("port", 0, U32),))


class Held:
    """A map with one number for each key, whose entries can be deleted."""

    def __init__(self, width: int = 8, **numbers: int) -> None:
        self.width = width
        self.numbers = {int(name[1:]): number for name, number in numbers.items()}

    def read(self) -> Entries:
        keys = np.array(list(self.numbers), np.uint32).view(np.uint8).reshape(-1, 4)
        raw = b"".join(number.to_bytes(self.width, "little") for number in self.numbers.values())
        return Entries(keys, np.frombuffer(raw, np.uint8).reshape(-1, 1, self.width))

    def delete(self, key: bytes) -> bool:
        return self.numbers.pop(struct.unpack("=I", key)[0], None) is not None


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ports(entries: Entries) -> list[int]:
    return [int(key.view(np.uint32)[0]) for key in entries.keys]


@pytest.mark.parametrize("width", [1, 3, 8, 12])
def test_entries_go_when_they_did_not_change_for_the_ttl(clock: Clock, width: int) -> None:
    held = Held(width, p1=1, p2=1)
    table = Expiring(held, 60.0, clock)
    assert ports(table.read()) == [1, 2]
    clock.now += 59
    held.numbers[2] = 2
    held.numbers[3] = 1
    assert ports(table.read()) == [1, 2, 3]
    assert table.expired == 0
    clock.now += 1
    assert ports(table.read()) == [2, 3]
    assert (table.expired, set(held.numbers)) == (1, {2, 3})
    clock.now += 58.9
    assert ports(table.read()) == [2, 3]
    assert table.expired == 0
    clock.now += 0.1
    assert ports(table.read()) == []
    assert (table.expired, held.numbers) == (2, {})


def test_an_entry_that_changes_now_and_then_stays_whatever_its_neighbours_do(clock: Clock) -> None:
    held = Held(p7=0)
    table = Expiring(held, 60.0, clock)
    for step in range(20):
        clock.now += 40
        held.numbers = {step + 100: 1, 7: held.numbers[7] + 1, step + 200: 1}  # others come and go, rows move
        assert 7 in ports(table.read())


def test_a_map_with_ttl_may_be_empty_before_and_after(clock: Clock) -> None:
    held = Held(4)
    table = Expiring(held, 60.0, clock)
    assert ports(table.read()) == []
    held.numbers[1] = 1
    assert ports(table.read()) == [1]
    clock.now += 60
    assert ports(table.read()) == []
    assert ports(table.read()) == []


def test_arrays_show_what_was_ever_used() -> None:
    held = Held(p0=0, p1=5, p2=0)
    table = WithoutZeros(held)
    assert ports(table.read()) == [1]
    held.numbers[1], held.numbers[2] = 0, 1
    assert ports(table.read()) == [1, 2]


def made(
    held: Held, clock: Clock, options: MapOptions, kind: int = bpf.BPF_MAP_TYPE_HASH, most: int = 10
) -> ProgramCollector:
    metric = MetricSpec(name="x_total", type="counter", help="h", map="m", max_series=most)
    spec = ProgramSpec(name="p", variants=[], source=Path("p.c"), text="", metrics=[metric], maps={"m": options})
    map_ = Map("m", kind, 4, held.width, 100, key=KEY, value=U64 if held.width == 8 else U32)
    labels = [LabelSpec(name="port", field="key")] if kind == bpf.BPF_MAP_TYPE_ARRAY else None
    spec.metrics[0] = metric.model_copy(update={"labels": labels})
    program = Program("p", State.RUNNING, maps=(map_,))
    return ProgramCollector(program, spec, {"m": held}, Names.empty(), possible=(0,), online=lambda: (0,), clock=clock)


def page(of: ProgramCollector) -> list[str]:
    text = render(of.collect(), openmetrics=False).decode()
    return [line for line in text.split("\n") if line and not line.startswith("#")]


@pytest.mark.parametrize("width", [4, 8])
def test_a_series_that_ttl_ended_starts_again_at_0_and_is_counted(clock: Clock, width: int) -> None:
    held = Held(width, p1=41, p2=7)
    collector = made(held, clock, MapOptions(ttl=60.0))
    assert page(collector) == ['x_total{port="1"} 41', 'x_total{port="2"} 7']
    assert collector.report.metrics["x_total"].expired == 0
    clock.now += 60
    held.numbers[2] = 8
    assert page(collector) == ['x_total{port="2"} 8']
    assert collector.report.metrics["x_total"].expired == 1
    assert collector.report.entries == {"m": 1}
    held.numbers[1] = 2
    clock.now += 1
    assert page(collector) == ['x_total{port="2"} 8', 'x_total{port="1"} 2']
    assert collector.report.metrics["x_total"].expired == 1


def test_what_the_program_itself_deletes_stays_until_ttl_ends_it(clock: Clock) -> None:
    held = Held(p1=41, p2=7)
    collector = made(held, clock, MapOptions(ttl=60.0))
    page(collector)
    held.delete(struct.pack("=I", 1))
    clock.now += 59
    held.numbers[2] = 8
    assert page(collector) == ['x_total{port="1"} 41', 'x_total{port="2"} 8']
    assert collector.report.metrics["x_total"].expired == 0
    clock.now += 1
    assert page(collector) == ['x_total{port="2"} 8']
    assert collector.report.metrics["x_total"].expired == 1


def test_an_expired_series_frees_its_place(clock: Clock) -> None:
    held = Held(p1=1)
    collector = made(held, clock, MapOptions(ttl=60.0), most=1)
    page(collector)
    held.numbers[2] = 1
    assert page(collector) == ['x_total{port="1"} 1', 'x_total{port="other"} 1']
    clock.now += 60
    held.numbers = {3: 1, **held.numbers}
    page(collector)
    clock.now += 60
    held.numbers[4] = 9
    assert page(collector) == ['x_total{port="4"} 9']


def test_metrics_without_ttl_say_nothing_of_it(clock: Clock) -> None:
    collector = made(Held(p1=1), clock, MapOptions())
    page(collector)
    assert collector.report.metrics["x_total"].expired is None


def test_zeros_of_an_array_have_no_series(clock: Clock) -> None:
    held = Held(p0=0, p1=5, p2=0)
    collector = made(held, clock, MapOptions(zeros=False), bpf.BPF_MAP_TYPE_ARRAY)
    assert page(collector) == ['x_total{port="1"} 5']
    held.numbers[2] = 1
    assert page(collector) == ['x_total{port="1"} 5', 'x_total{port="2"} 1']
    assert page(made(held, clock, MapOptions(), bpf.BPF_MAP_TYPE_ARRAY))[0] == 'x_total{port="0"} 0'


def test_a_metric_of_an_lru_map_says_that_it_is_approximate(clock: Clock) -> None:
    for kind, text in (
        (bpf.BPF_MAP_TYPE_LRU_HASH, "h (approximate: its LRU map forgets entries to make room)"),
        (bpf.BPF_MAP_TYPE_HASH, "h"),
    ):
        assert made(Held(p1=1), clock, MapOptions(), kind).collect()[0].help == text


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (
            {"m": MapOptions(zeros=False)},
            bpf.BPF_MAP_TYPE_HASH,
            "maps m: zeros: only an array has entries that nobody made (leave zeros out)",
        ),
        (
            {"m": MapOptions(ttl=1)},
            bpf.BPF_MAP_TYPE_PERCPU_ARRAY,
            "maps m: ttl: entries of an array cannot be deleted (use a hash in the C text, or leave ttl out)",
        ),
        (
            {"m": MapOptions(ttl=1)},
            bpf.BPF_MAP_TYPE_STACK_TRACE,
            "maps m: ttl: map type 7 has no entries to delete (leave ttl out)",
        ),
        ({"n": MapOptions()}, bpf.BPF_MAP_TYPE_HASH, "maps n: no such map (the C text has: m)"),
    ],
)
def test_options_that_a_map_cannot_have(options: dict[str, MapOptions], kind: int, text: str) -> None:
    with pytest.raises(BindingError) as raised:
        bind_all([], [Map("m", kind, 4, 8, 10, key=U32, value=U64)], options)
    assert str(raised.value) == text
