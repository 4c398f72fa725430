"""A program's recorded maps to families: shared reads, failures kept apart, CPUs, merged entries, limits."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.binding.bind import BindingError
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.table import Entries, Readable
from exporter.collecting.text.exposition import render
from exporter.decoders import Names
from exporter.kernel import bpf
from exporter.program import LOST_UPDATES, Map, Member, Program, State, Type
from exporter.spec import BucketSpec, LabelSpec, MapOptions, MetricSpec, ProgramSpec

U16, U32, U64 = Type("int", "u16", 2), Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type("struct", "key_t", 4, members=(Member("family", 0, U16), Member("port", 16, U16)))
VALUE = Type("struct", "value_t", 16, members=(Member("calls", 0, U64), Member("bytes", 64, U64)))


class Held:
    """A map with contents that a test sets: one list of values of each CPU for each key."""

    def __init__(self, rows: Mapping[bytes, list[bytes]]) -> None:
        self.rows = dict(rows)
        self.reads = 0
        self.error: Exception | None = None

    def read(self) -> Entries:
        self.reads += 1
        if self.error:
            raise self.error
        first_key, first_values = next(iter(self.rows.items()), (b"\0\0\0\0", [bytes(8)]))
        keys = np.frombuffer(b"".join(self.rows), np.uint8).reshape(len(self.rows), len(first_key))
        values = np.frombuffer(b"".join(b"".join(each) for each in self.rows.values()), np.uint8)
        return Entries(keys, values.reshape(len(self.rows), len(first_values), len(first_values[0])))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names.open(proc=tmp_path, sys=tmp_path)


def key(port: int, family: int = 2) -> bytes:
    return struct.pack("HH", family, port)


def u64s(*numbers: int) -> list[bytes]:
    return [struct.pack("Q", number) for number in numbers]


def a_map(name: str, kind: int = bpf.BPF_MAP_TYPE_PERCPU_HASH, value: Type = U64, **more: Any) -> Map:
    return Map(name, kind, 4, value.size, 100, key=KEY, value=value, **more)


def metric(name: str, map: str, **more: Any) -> MetricSpec:  # noqa: A002
    return MetricSpec(**{"name": name, "type": "counter", "help": "h", "map": map, **more})


def collector(
    names: Names,
    metrics: list[MetricSpec],
    maps: Iterable[Map],
    tables: Mapping[str, Readable],
    possible: tuple[int, ...] = (0, 1),
    online: tuple[int, ...] = (0, 1),
    clock: Clock | None = None,
    options: Mapping[str, MapOptions] | None = None,
) -> ProgramCollector:
    spec = ProgramSpec(name="p", variants=[], source=Path("p.c"), text="", metrics=metrics, maps=dict(options or {}))
    program = Program("p", State.RUNNING, maps=tuple(maps))
    return ProgramCollector(
        program, spec, tables, names, possible=possible, online=lambda: online, clock=clock or Clock()
    )


def page(of: ProgramCollector) -> list[str]:
    """The sample lines of a collection."""
    text = render(of.collect(), openmetrics=False).decode()
    return [line for line in text.split("\n") if line and not line.startswith("#")]


PORT = [LabelSpec(name="port", field="port")]
CPU = [LabelSpec(name="cpu", field="cpu")]


def test_cpus_are_summed_and_metrics_of_one_map_read_it_once(names: Names) -> None:
    held = Held({key(443): [struct.pack("QQ", 2**62, 5), struct.pack("QQ", 2**62, 7)]})
    metrics = [
        metric("calls_total", "m", value="calls", labels=PORT),
        metric("bytes_total", "m", value="bytes", labels=PORT),
    ]
    c = collector(names, metrics, [a_map("m", value=VALUE)], {"m": held})
    assert page(c) == ['calls_total{port="443"} 9223372036854775808', 'bytes_total{port="443"} 12']
    assert held.reads == 1
    assert c.report.entries == {"m": 1}
    assert c.report.success


def test_after_a_failure_all_is_collected_again(names: Names) -> None:
    held = Held({key(443): u64s(1, 2)})
    c = collector(names, [metric("x_total", "m", labels=PORT)], [a_map("m")], {"m": held})
    page(c)
    held.error = OSError(5, "Input/output error")
    assert page(c) == []
    assert not c.report.success
    held.error = None
    assert page(c) == ['x_total{port="443"} 3']
    assert c.report.success


def test_fields_that_are_no_label_are_added_up(names: Names) -> None:
    held = Held({key(443, 2): u64s(1, 2), key(443, 10): u64s(10, 20), key(80, 2): u64s(100, 0)})
    c = collector(names, [metric("x_total", "m", labels=PORT)], [a_map("m")], {"m": held})
    assert page(c) == ['x_total{port="443"} 33', 'x_total{port="80"} 100']


@pytest.mark.parametrize(("reduce", "expected"), [("max", 20), ("min", 1)])
def test_gauges_can_show_the_largest_or_smallest(names: Names, reduce: str, expected: int) -> None:
    held = Held({key(443, 2): u64s(1, 2), key(443, 10): u64s(10, 20)})
    gauge = metric("x", "m", type="gauge", labels=PORT, reduce=reduce)
    assert page(collector(names, [gauge], [a_map("m")], {"m": held})) == [f'x{{port="443"}} {expected}']


def test_a_gauge_of_one_counts_entries(names: Names) -> None:
    held = Held({key(443, 2): u64s(1, 2), key(443, 10): u64s(10, 20), key(80): u64s(0, 0)})
    gauge = metric("x", "m", type="gauge", value=1, labels=PORT)
    assert page(collector(names, [gauge], [a_map("m")], {"m": held})) == ['x{port="443"} 2', 'x{port="80"} 1']


def test_the_cpu_label_shows_online_cpus_and_others_that_are_not_zero(names: Names) -> None:
    held = Held({key(443): u64s(0, 7, 0, 0), key(80): u64s(1, 0, 0, 9)})
    c = collector(
        names, [metric("x_total", "m", labels=CPU + PORT)], [a_map("m")], {"m": held}, (0, 1, 2, 5), online=(0, 1)
    )
    assert page(c) == [
        'x_total{cpu="0",port="443"} 0',
        'x_total{cpu="0",port="80"} 1',
        'x_total{cpu="1",port="443"} 7',
        'x_total{cpu="1",port="80"} 0',
        'x_total{cpu="5",port="80"} 9',
    ]


def test_an_offline_cpu_that_counted_appears_when_it_is_not_zero(names: Names) -> None:
    held = Held({key(443): u64s(1, 0)})
    c = collector(names, [metric("x_total", "m", labels=CPU)], [a_map("m")], {"m": held}, online=(0,))
    assert page(c) == ['x_total{cpu="0"} 1']
    held.rows[key(443)] = u64s(1, 4)
    assert page(c) == ['x_total{cpu="0"} 1', 'x_total{cpu="1"} 4']


def test_entries_of_one_name_are_one_family(names: Names) -> None:
    v4, v6 = Held({key(443): u64s(1, 1)}), Held({key(443): u64s(5, 5), key(80): u64s(7, 0)})
    labels = {family: [LabelSpec(name="family", const=family), *PORT] for family in ("ipv4", "ipv6")}
    metrics = [metric("x_total", "v4", labels=labels["ipv4"]), metric("x_total", "v6", labels=labels["ipv6"])]
    c = collector(names, metrics, [a_map("v4"), a_map("v6")], {"v4": v4, "v6": v6})
    families = c.collect()
    assert [f.name for f in families] == ["x_total"]
    assert page(c) == [
        'x_total{family="ipv4",port="443"} 2',
        'x_total{family="ipv6",port="443"} 10',
        'x_total{family="ipv6",port="80"} 7',
    ]


def test_entries_of_one_name_with_equal_label_sets_are_added(names: Names) -> None:
    v4, v6 = Held({key(443): u64s(1, 1)}), Held({key(443): u64s(5, 5)})
    metrics = [metric("x_total", name, labels=PORT) for name in ("v4", "v6")]
    c = collector(names, metrics, [a_map("v4"), a_map("v6")], {"v4": v4, "v6": v6})
    assert page(c) == ['x_total{port="443"} 12']


SLOTS = Type(
    "struct",
    "h",
    40,
    members=(Member("slots", 0, Type("array", "", 32, element=U64, count=4)), Member("sum", 256, U64)),
)


def slots(*numbers: int) -> bytes:
    return struct.pack(f"{len(numbers)}Q", *numbers)


def test_histograms_of_two_maps_with_equal_label_sets_are_added(names: Names) -> None:
    a = Held({key(443): [slots(1, 0, 0, 1, 30), slots(1, 0, 0, 0, 1)]})
    b = Held({key(443): [slots(0, 5, 0, 0, 10), slots(0, 0, 0, 0, 0)], key(80): [slots(0, 0, 1, 0, 4), bytes(40)]})
    metrics = [metric("h_seconds", name, type="histogram", labels=PORT, scale=1e-6) for name in ("a", "b")]
    c = collector(names, metrics, [a_map("a", value=SLOTS), a_map("b", value=SLOTS)], {"a": a, "b": b})
    assert page(c) == [
        'h_seconds_bucket{le="1e-06",port="443"} 2',
        'h_seconds_bucket{le="2e-06",port="443"} 7',
        'h_seconds_bucket{le="4e-06",port="443"} 7',
        'h_seconds_bucket{le="+Inf",port="443"} 8',
        'h_seconds_count{port="443"} 8',
        'h_seconds_sum{port="443"} 4.1e-05',
        'h_seconds_bucket{le="1e-06",port="80"} 0',
        'h_seconds_bucket{le="2e-06",port="80"} 0',
        'h_seconds_bucket{le="4e-06",port="80"} 1',
        'h_seconds_bucket{le="+Inf",port="80"} 1',
        'h_seconds_count{port="80"} 1',
        'h_seconds_sum{port="80"} 4e-06',
    ]


def test_histograms_split_by_cpu(names: Names) -> None:
    held = Held({key(443): [slots(1, 0, 0, 1, 30), slots(0, 0, 2, 0, 8)]})
    h = metric("h", "m", type="histogram", labels=CPU)
    c = collector(names, [h], [a_map("m", value=SLOTS)], {"m": held})
    assert page(c)[4:6] == ['h_count{cpu="0"} 2', 'h_sum{cpu="0"} 30']
    assert page(c)[10:12] == ['h_count{cpu="1"} 2', 'h_sum{cpu="1"} 8']


def test_a_slot_in_the_key_of_a_per_cpu_map(names: Names) -> None:
    held = Held({key(0, 2): u64s(1, 2), key(1, 2): u64s(3, 4), key(9, 2): u64s(100, 11), key(1, 10): u64s(0, 5)})
    h = metric("h", "m", type="histogram", slot="port", sum_slot=9, buckets=BucketSpec(min=0, max=1))
    assert page(collector(names, [h], [a_map("m")], {"m": held})) == [
        'h_bucket{family="10",le="1.0"} 0',
        'h_bucket{family="10",le="2.0"} 5',
        'h_bucket{family="10",le="+Inf"} 5',
        'h_count{family="10"} 5',
        'h_sum{family="10"} 0',
        'h_bucket{family="2",le="1.0"} 3',
        'h_bucket{family="2",le="2.0"} 10',
        'h_bucket{family="2",le="+Inf"} 10',
        'h_count{family="2"} 10',
        'h_sum{family="2"} 111',
    ]


def test_a_histogram_folds_by_label_set_and_loses_nothing(names: Names) -> None:
    held = Held({key(port): [slots(1, 0, 0, port, port * 10), bytes(40)] for port in range(1, 11)})
    h = metric("h", "m", type="histogram", labels=PORT, max_series=2)
    c = collector(names, [h], [a_map("m", value=SLOTS)], {"m": held})
    counts = [line for line in page(c) if line.startswith("h_count")]
    assert counts == ['h_count{port="1"} 2', 'h_count{port="10"} 11', 'h_count{port="other"} 52']
    assert (c.report.metrics["h"].series, c.report.metrics["h"].folded) == (3, 8)


def test_a_narrow_counter_goes_on_when_it_wraps(names: Names) -> None:
    held = Held({key(443): [struct.pack("II", 2**32 - 1, 0), struct.pack("II", 5, 0)]})
    c = collector(names, [metric("x_total", "m", labels=PORT)], [a_map("m", value=U32)], {"m": held})
    assert page(c) == [f'x_total{{port="443"}} {2**32 + 4}']
    held.rows[key(443)] = [struct.pack("II", 9, 0), struct.pack("II", 6, 0)]
    assert page(c) == [f'x_total{{port="443"}} {2**32 + 9 + 6}']


def test_a_narrow_gauge_is_what_it_is(names: Names) -> None:
    held = Held({key(443): [struct.pack("i", -5)]})
    gauge = metric("x", "m", type="gauge", labels=PORT)
    s32 = Type("int", "s32", 4, signed=True)
    c = collector(names, [gauge], [a_map("m", bpf.BPF_MAP_TYPE_HASH, s32)], {"m": held})
    assert page(c) == ['x{port="443"} -5']
    held.rows[key(443)] = [struct.pack("i", -7)]
    assert page(c) == ['x{port="443"} -7']


def test_one_unreadable_map_is_reported_and_leaves_the_others(names: Names) -> None:
    bad, good = Held({}), Held({key(443): u64s(1, 1)})
    bad.error = OSError(1, "BPF_MAP_LOOKUP_BATCH fd 7: Operation not permitted")
    metrics = [metric("a_total", "bad", labels=PORT), metric("b_total", "good", labels=PORT)]
    c = collector(names, metrics, [a_map("bad"), a_map("good")], {"bad": bad, "good": good})
    assert page(c) == ['b_total{port="443"} 2']
    assert not c.report.success
    assert c.report.error.startswith("p: collect metric a_total: ")
    assert "BPF_MAP_LOOKUP_BATCH fd 7: Operation not permitted" in c.report.error
    bad.error = None
    assert len(page(c)) == 1  # an empty map has no samples
    assert (c.report.success, c.report.error) == (True, "")


def test_a_gauge_shows_the_keys_that_are_there(names: Names) -> None:
    held = Held({})
    c = collector(names, [metric("x", "m", type="gauge", labels=PORT)], [a_map("m")], {"m": held})
    assert page(c) == []
    held.rows[key(443)] = u64s(1, 1)
    held.rows[key(22)] = u64s(1, 2)
    assert page(c) == ['x{port="22"} 3', 'x{port="443"} 2']
    del held.rows[key(22)]
    held.rows[key(443)] = u64s(0, 1)
    assert page(c) == ['x{port="443"} 1']


def test_helper_maps_are_counted_every_30_seconds(names: Names) -> None:
    held, helper, clock = Held({key(443): u64s(1, 1)}), Held({key(1): u64s(0, 0)}), Clock()
    maps = [a_map("m"), a_map("start"), Map("table", bpf.BPF_MAP_TYPE_ARRAY, 4, 8, 64, key=U32, value=U64)]
    c = collector(names, [metric("x_total", "m", labels=PORT)], maps, {"m": held, "start": helper}, clock=clock)
    for seconds in (0, 10, 29, 30, 31, 61):
        clock.now = 1000.0 + seconds
        c.collect()
    assert (held.reads, helper.reads) == (6, 3)
    assert c.report.entries == {"m": 1, "start": 1, "table": 64}


def test_lost_updates_are_shown_by_map(names: Names) -> None:
    lost = Held({struct.pack("I", 0): u64s(3, 4), struct.pack("I", 1): u64s(0, 0)})
    maps = [
        a_map("m", lost_index=0),
        a_map("start", lost_index=1),
        Map(LOST_UPDATES, bpf.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 2, key=U32, value=U64),
    ]
    tables = {"m": Held({}), "start": Held({}), LOST_UPDATES: lost}
    c = collector(names, [metric("x_total", "m", labels=PORT)], maps, tables)
    c.collect()
    assert c.report.insert_failures == {"m": 7, "start": 0}
    assert LOST_UPDATES not in c.report.entries


def test_a_disabled_metric_is_not_collected(names: Names) -> None:
    metrics = [metric("x_total", "m", labels=PORT, enabled=False), metric("y_total", "m", labels=PORT)]
    c = collector(names, metrics, [a_map("m")], {"m": Held({key(1): u64s(1, 1)})})
    assert page(c) == ['y_total{port="1"} 2']


def test_a_metric_that_does_not_fit_is_found_at_once(names: Names) -> None:
    with pytest.raises(BindingError, match=r'^metric x_total: no map "n"'):
        collector(names, [metric("x_total", "n", labels=PORT)], [a_map("m")], {})


def test_a_map_that_was_not_handed_over_is_named(names: Names) -> None:
    c = collector(names, [metric("x_total", "m", labels=PORT)], [a_map("m")], {})
    assert c.collect() == []
    assert c.report.error == "p: collect metric x_total: read map m: it was not handed over"


def test_a_slot_in_the_key_split_by_cpu(names: Names) -> None:
    held = Held({key(0): u64s(1, 0), key(1): u64s(0, 4)})
    h = metric("h", "m", type="histogram", labels=CPU, slot="port", buckets=BucketSpec(min=0, max=1))
    assert page(collector(names, [h], [a_map("m")], {"m": held})) == [
        'h_bucket{cpu="0",le="1.0"} 1',
        'h_bucket{cpu="0",le="2.0"} 1',
        'h_bucket{cpu="0",le="+Inf"} 1',
        'h_bucket{cpu="1",le="1.0"} 0',
        'h_bucket{cpu="1",le="2.0"} 4',
        'h_bucket{cpu="1",le="+Inf"} 4',
    ]


def test_a_report_is_not_changed_by_the_next_collection(names: Names) -> None:
    held = Held({key(443): u64s(1, 1)})
    c = collector(names, [metric("x_total", "m", labels=PORT)], [a_map("m")], {"m": held})
    c.collect()
    first = c.report
    held.rows[key(80)] = u64s(1, 1)
    c.collect()
    assert (first.entries, c.report.entries) == ({"m": 1}, {"m": 2})


def test_cpus_that_cannot_be_listed_fail_only_the_metric_that_shows_them(names: Names) -> None:
    def unreadable() -> list[int]:
        raise PermissionError(13, "Permission denied", "/sys/devices/system/cpu/online")

    held = Held({key(443): u64s(1, 1)})
    spec = ProgramSpec(
        name="p",
        variants=[],
        source=Path("p.c"),
        text="",
        metrics=[metric("a_total", "m", labels=CPU), metric("b_total", "m", labels=PORT)],
    )
    program = Program("p", State.RUNNING, maps=(a_map("m"),))
    c = ProgramCollector(program, spec, {"m": held}, names, possible=[0, 1], online=unreadable)
    assert page(c) == ['b_total{port="443"} 2']
    assert "/sys/devices/system/cpu/online" in c.report.error
