"""Metrics bound to layouts: where each number and label is, and what is said of those that do not fit."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import pytest

from exporter.binding.bind import BindingError, LabelField, bind, bind_all
from exporter.binding.buckets import scaled
from exporter.binding.paths import Number
from exporter.decoders import Names
from exporter.kernel import bpf
from exporter.program import Map, Member, Type
from exporter.spec import BucketSpec, DecodeStep, LabelSpec, MetricSpec

U8 = Type("int", "u8", 1)
U16 = Type("int", "u16", 2)
BE16 = Type("int", "__be16", 2)
U32 = Type("int", "u32", 4)
S32 = Type("int", "int", 4, signed=True)
U64 = Type("int", "u64", 8)
CHAR = Type("int", "char", 1, signed=True)
COMM = Type("array", "", 16, element=CHAR, count=16)
STATE = Type("enum", "state", 4, values=(("LISTEN", 10), ("CLOSE", 7)))
ADDRESS = Type(
    "union", "", 4, members=(Member("v4", 0, U32), Member("bytes", 0, Type("array", "", 4, element=U8, count=4)))
)
TUPLE = Type("struct", "tuple", 8, members=(Member("port", 0, BE16), Member("pad", 16, U16), Member("", 32, ADDRESS)))
KEY = Type("struct", "key_t", 28, members=(Member("t", 0, TUPLE), Member("state", 64, STATE), Member("comm", 96, COMM)))
PLAIN_KEY = Type("struct", "plain_t", 8, members=(Member("op", 0, U32), Member("slot", 32, U32)))
VALUE = Type(
    "struct",
    "value_t",
    112,
    members=(
        Member("calls", 0, U64),
        Member("errors", 64, S32),
        Member("slots", 128, Type("array", "", 80, element=U64, count=10)),
        Member("sum", 768, U64),
        Member("flag", 832, U32, bits=1),
    ),
)

NO_BTF = "a float or double in any map of the program takes away all its BTF: count in whole numbers"


def a_map(
    key: Type | None = PLAIN_KEY, value: Type | None = VALUE, kind: int = bpf.BPF_MAP_TYPE_HASH, entries: int = 100
) -> Map:
    return Map("m", kind, key.size if key else 4, value.size if value else 8, entries, key=key, value=value)


def metric(**keys: Any) -> MetricSpec:
    return MetricSpec(**{"name": "x", "type": "counter", "help": "h", "map": "m", **keys})


def mistake(of: MetricSpec, on: Map) -> str:
    with pytest.raises(BindingError) as raised:
        bind(of, on)
    return str(raised.value)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("calls", Number(0, 8, False)),
        ("value.calls", Number(0, 8, False)),
        ("errors", Number(8, 4, True)),
        ("slots[9]", Number(88, 8, False)),
        ("flag", Number(104, 4, False, bits=1)),
    ],
)
def test_value_paths(path: str, number: Number) -> None:
    assert bind(metric(value=path), a_map()).value == number


def test_a_scalar_value_needs_no_path() -> None:
    assert bind(metric(), a_map(value=U64)).value == Number(0, 8, False)
    assert bind(metric(), a_map(value=Type("int", "bool", 1, encoding="bool"))).value == Number(0, 1, False)


def test_network_byte_order_is_kept_in_mind() -> None:
    assert bind(metric(), a_map(value=Type("int", "__be32", 4))).value == Number(0, 4, False, ">")


def test_gauge_of_one_counts_entries() -> None:
    assert bind(metric(type="gauge", value=1), a_map()).value is None


def test_without_labels_every_field_of_the_key_is_one() -> None:
    binding = bind(metric(value="calls"), a_map(PLAIN_KEY))
    assert [(x.name, x.source, x.offset, x.size) for x in binding.labels] == [
        ("op", "key", 0, 4),
        ("slot", "key", 4, 4),
    ]


def test_nested_fields_are_joined_and_labels_sorted_by_name() -> None:
    key = Type(
        "struct",
        "k",
        12,
        members=(
            Member("z", 0, U32),
            Member("a", 32, Type("struct", "in", 8, members=(Member("x", 0, U32), Member("b", 32, U32)))),
        ),
    )
    binding = bind(metric(value="calls"), a_map(key))
    assert [(x.name, x.offset) for x in binding.labels] == [("a_b", 8), ("a_x", 4), ("z", 0)]


def test_label_paths_reach_into_structs_unions_arrays_and_the_value() -> None:
    labels = [
        LabelSpec(name="port", field="t.port"),
        LabelSpec(name="ip", field="t.v4"),
        LabelSpec(name="third", field="key.t.bytes[2]"),
        LabelSpec(name="comm", field="comm"),
        LabelSpec(name="last", field="value.errors"),
        LabelSpec(name="dir", const="sent"),
    ]
    found = {
        x.name: (x.source, x.offset, x.size) for x in bind(metric(value="calls", labels=labels), a_map(KEY)).labels
    }
    assert found == {
        "comm": ("key", 12, 16),
        "dir": ("const", 0, 0),
        "ip": ("key", 4, 4),
        "last": ("value", 8, 4),
        "port": ("key", 0, 2),
        "third": ("key", 6, 1),
    }


def test_a_scalar_key_is_named_by_the_label() -> None:
    binding = bind(metric(value="calls", labels=[LabelSpec(name="port", field="key")]), a_map(U16))
    assert [(x.name, x.offset, x.size) for x in binding.labels] == [("port", 0, 2)]


def test_an_array_of_one_entry_has_no_labels() -> None:
    assert bind(metric(), a_map(S32, U64, bpf.BPF_MAP_TYPE_ARRAY, 1)).labels == ()


def test_the_index_of_an_array_is_a_u32_key() -> None:
    for key in (S32, None):
        binding = bind(metric(labels=[LabelSpec(name="irq", field="key")]), a_map(key, U64, bpf.BPF_MAP_TYPE_ARRAY, 8))
        assert [(x.name, x.offset, x.size) for x in binding.labels] == [("irq", 0, 4)]


def test_cpu_splits_a_per_cpu_map() -> None:
    binding = bind(
        metric(value="calls", labels=[LabelSpec(name="cpu", field="cpu")]), a_map(kind=bpf.BPF_MAP_TYPE_PERCPU_HASH)
    )
    assert binding.labels == (LabelField("cpu", "cpu"),)
    assert binding.splits_cpus


# --- histograms ---


def histogram(**keys: Any) -> MetricSpec:
    return metric(type="histogram", **keys)


def test_slots_in_the_value_are_exp2_over_the_whole_array() -> None:
    buckets = bind(histogram(scale=1e-9), a_map()).buckets
    assert buckets is not None
    assert buckets.slots == Number(16, 8, False)
    assert buckets.count == 10
    assert buckets.sum == Number(96, 8, False)
    assert buckets.bounds == (1e-9, 2e-9, 4e-9, 8e-9, 1.6e-8, 3.2e-8, 6.4e-8, 1.28e-7, 2.56e-7)


@pytest.mark.parametrize(
    ("buckets", "bounds", "first"),
    [
        (BucketSpec(type="exp2", min=2, max=4), (4.0, 8.0, 16.0), 2),
        (BucketSpec(type="exp2zero", min=0, max=3), (0.0, 1.0, 2.0, 4.0), 0),
        (BucketSpec(type="linear", width=50, min=1, max=3), (50.0, 100.0, 150.0), 1),
        (BucketSpec(type="fixed", bounds=[100, 1000, 5000], max=2), (100.0, 1000.0, 5000.0), 0),
        (BucketSpec(type="fixed", bounds=[100, 1000, 5000], min=1, max=2), (1000.0, 5000.0), 1),
    ],
)
@pytest.mark.parametrize("in_key", [False, True])
def test_bounds(buckets: BucketSpec, bounds: tuple[float, ...], first: int, in_key: bool) -> None:
    bound = (
        bind(histogram(buckets=buckets, slot="slot"), a_map(value=U64))
        if in_key
        else bind(histogram(buckets=buckets), a_map())
    )
    assert bound.buckets is not None
    assert (bound.buckets.bounds, bound.buckets.first) == (bounds, first)


def test_a_slot_in_the_key_is_no_label() -> None:
    binding = bind(histogram(slot="slot", sum_slot=28, buckets=BucketSpec(min=0, max=27)), a_map(value=U64))
    assert binding.label_names == ("op",)
    assert binding.value == Number(0, 8, False)
    assert binding.buckets is not None
    assert (binding.buckets.slot, binding.buckets.sum_slot) == (Number(4, 4, False), 28)


def test_slots_that_are_bounds() -> None:
    buckets = BucketSpec(type="fixed", bounds=[10, 20, 50], slot_is_bound=True)
    binding = bind(histogram(slot="key", labels=[], buckets=buckets, scale=0.001), a_map(U64, U64))
    assert binding.buckets is not None
    assert binding.buckets.slot_bounds == (10, 20, 50)
    assert binding.buckets.bounds == (0.01, 0.02, 0.05)


def test_scaling_rounds_once() -> None:
    assert scaled(3, 1e-9) == 3e-9 != 3 * 1e-9
    assert scaled(7, 0.25) == 1.75
    assert scaled(7, 4096) == 28672
    assert scaled(7, 0.3) == 7 * 0.3


# --- mistakes ---


HISTS = a_map()
ARRAY = a_map(S32, U64, bpf.BPF_MAP_TYPE_ARRAY, 8)


@pytest.mark.parametrize(
    ("of", "on", "text"),
    [
        (
            metric(value="call"),
            a_map(),
            'value: no field "call" in struct value_t (it has: calls, errors, slots, sum, flag)',
        ),
        (metric(), a_map(), "value: struct value_t is no number (its members: calls, errors, slots, sum, flag)"),
        (
            metric(value="calls"),
            a_map(kind=bpf.BPF_MAP_TYPE_LPM_TRIE),
            "labels: the key of map m is a prefix (name it: labels: [{name: prefix, field: key, decode: [cidr]}], or "
            "say labels: [])",
        ),
        (metric(value="slots"), a_map(), "value slots: u64[10] is no number of 8 to 64 bits"),
        (metric(value="slots[10]"), a_map(), "value: [10]: the array has 10 elements, numbered from 0"),
        (
            metric(value=f"slots[{'9' * 5000}]"),
            a_map(),
            f"value: [{'9' * 5000}]: the array has 10 elements, numbered from 0",
        ),
        (metric(value="slots[x]"), a_map(), "value: [x]: an index is a number in brackets, as in a[2]"),
        (metric(value="calls.x"), a_map(), 'value: no field "x" in u64 (it is no struct)'),
        (
            metric(value="ratio"),
            a_map(value=Type("struct", "", 8, members=(Member("ratio", 0, Type("float", "double", 8)),))),
            "value ratio: double is a floating-point number, and BPF programs have none (use an integer)",
        ),
        (metric(value="calls"), a_map(value=None), f'map "m": its BTF does not describe the value ({NO_BTF})'),
        (metric(value="calls"), a_map(key=None), f'map "m": its BTF does not describe the key ({NO_BTF})'),
        (metric(value=2, type="gauge"), a_map(), "value 2: only a gauge can have a number, 1, to count entries"),
        (metric(value=1), a_map(), "value 1: only a gauge can have a number, 1, to count entries"),
        (metric(value="calls", scale=-1.0), a_map(), "scale -1.0: not a positive number"),
        (metric(value="calls", reduce="max"), a_map(), "reduce max: a counter can only be summed"),
        (
            metric(),
            a_map(kind=bpf.BPF_MAP_TYPE_RINGBUF),
            'map "m" has type 27: only hash, array and LPM trie maps have entries to read',
        ),
        (
            metric(value="calls", labels=[LabelSpec(name="l", field="x")]),
            a_map(),
            'label l: no field "x" in struct plain_t (it has: op, slot)',
        ),
        (
            metric(value="calls", labels=[LabelSpec(name="l", field="x")]),
            a_map(U16),
            'label l: no field "x" in u16 (the key is no struct: write "key")',
        ),
        (
            metric(value="calls", labels=[LabelSpec(name="l", field="key")]),
            a_map(),
            "label l: the field is struct plain_t, which has no text of its own",
        ),
        (
            metric(value="calls", labels=[LabelSpec(name="l", field="op.y")]),
            a_map(),
            'label l: no field "y" in u32 (it is no struct)',
        ),
        (
            metric(value="calls", labels=[LabelSpec(name="l", field="cpu")]),
            a_map(),
            "label l: map m is not per-CPU (a member of the key named cpu is key.cpu)",
        ),
        (metric(value="calls", labels=[LabelSpec(name="l")]), a_map(), "label l: needs field or const"),
        (
            metric(value="calls", labels=[LabelSpec(name="l", const="a"), LabelSpec(name="l", const="b")]),
            a_map(),
            "label l: there are two of this name (name one of them otherwise)",
        ),
        (
            metric(value="calls", labels=[LabelSpec(name="l", field="value.errors")]),
            a_map(kind=bpf.BPF_MAP_TYPE_PERCPU_HASH),
            "label l: field value.errors: each CPU has its own value (add a label with field: cpu)",
        ),
        (
            metric(value="calls", labels=[LabelSpec(name="l", field="op", decode=[DecodeStep(name="string")])]),
            a_map(),
            "label l: decoder string takes",
        ),
        (
            metric(value="calls"),
            a_map(U16),
            "labels: the key of map m is u16 without field names",
        ),
        (
            metric(),
            ARRAY,
            "labels: the key of map m is u32 without field names",
        ),
        (
            metric(value="calls"),
            a_map(KEY),
            "labels: t is a union, and only its reader knows which member counts (list the labels)",
        ),
        (histogram(slots="calls"), HISTS, "slots calls: u64 is no array of numbers"),
        (histogram(), a_map(value=U64), 'slots: no field "slots" in u64 (the value is no struct: write "value")'),
        (histogram(sum="total"), HISTS, 'sum: no field "total" in struct value_t'),
        (
            histogram(buckets=BucketSpec(max=9)),
            HISTS,
            "buckets: max 9 is too high for an array of 10 (the last element counts what is above all bounds",
        ),
        (
            histogram(buckets=BucketSpec(min=5, max=4)),
            HISTS,
            "buckets: min 5, max 4: slots are numbered from 0 and max is not below min",
        ),
        (histogram(buckets=BucketSpec(type="linear", max=4)), HISTS, "buckets: type linear needs a width above 0"),
        (
            histogram(slot="key", buckets=BucketSpec(type="linear", width=1, max=99_999_999_999)),
            a_map(key=U64, value=U64),
            "buckets: 100000000000 of them, each a series for every label set (at most 4096: take a larger width, or "
            "min and max)",
        ),
        (histogram(buckets=BucketSpec(type="fixed")), HISTS, "buckets: type fixed needs bounds"),
        (
            histogram(buckets=BucketSpec(type="fixed", bounds=[1, 1, 2], max=2)),
            HISTS,
            "buckets: the bounds do not rise",
        ),
        (
            histogram(buckets=BucketSpec(type="fixed", bounds=[1, 2, 3])),
            HISTS,
            "buckets: 3 bounds do not fit an array of 10 (it has a slot for each of 9 bounds and one for what is "
            "above all; if they are to be less, say max)",
        ),
        (
            histogram(buckets=BucketSpec(type="fixed", bounds=list(range(1, 13)))),
            HISTS,
            "buckets: 12 bounds do not fit an array of 10 (it has a slot for each of 9 bounds and one for what is "
            "above all; if they are to be less, say max)",
        ),
        (
            histogram(buckets=BucketSpec(type="fixed", bounds=[1, math.inf], max=1)),
            HISTS,
            "buckets: a bound is not a finite number (+Inf is always there)",
        ),
        (histogram(buckets=BucketSpec(slot_is_bound=True)), HISTS, "buckets: slot_is_bound is for a slot in the key"),
        (histogram(sum_slot=3), HISTS, "sum_slot: only with slot; use sum for a member of the value"),
        (
            histogram(slot="slot", slots="slots"),
            HISTS,
            "slot and slots: the slots are in the key or in the value, not both",
        ),
        (
            histogram(slot="slot"),
            HISTS,
            "buckets: missing (the slot is in the key, so nothing says how many there are)",
        ),
        (
            histogram(slot="slot", buckets=BucketSpec()),
            a_map(value=U64),
            "buckets: max is missing (the slot is in the key, so nothing says how many there are)",
        ),
        (
            histogram(slot="slot", sum_slot=3, buckets=BucketSpec(max=3)),
            a_map(value=U64),
            "sum_slot 3: is also a bucket (buckets are slots 0 to 3)",
        ),
        (
            histogram(slot="slt", buckets=BucketSpec(max=3)),
            a_map(value=U64),
            'slot: no field "slt" in struct plain_t (it has: op, slot)',
        ),
        (
            histogram(slot="slot", buckets=BucketSpec(max=64)),
            a_map(value=U64),
            "buckets: max 64: the bound of slot 63 is 2^63, the last one below 64 bits",
        ),
        (
            histogram(labels=[LabelSpec(name="le", field="op")]),
            HISTS,
            "label le: the name that the buckets of a histogram use",
        ),
    ],
)
def test_a_mistake_says_what_there_is_instead(of: MetricSpec, on: Map, text: str) -> None:
    assert mistake(of, on).startswith(f"metric x: {text}")


def test_all_mistakes_of_a_program_come_at_once() -> None:
    metrics = [
        metric(
            value="calls",
            labels=[LabelSpec(name="a", field="x"), LabelSpec(name="b", field="op"), LabelSpec(name="c", field="y")],
        ),
        metric(name="y", map="sends"),
        metric(name="z", value="nothing", enabled=False),
    ]
    with pytest.raises(BindingError) as raised:
        bind_all(metrics, [a_map()])
    assert raised.value.messages == (
        'metric x: label a: no field "x" in struct plain_t (it has: op, slot)',
        'metric x: label c: no field "y" in struct plain_t (it has: op, slot)',
        'metric y: no map "sends" (the C text has: m)',
    )


def test_entries_of_one_family_must_agree_in_what_only_the_layout_shows() -> None:
    other = Type("struct", "k", 4, members=(Member("port", 0, U32),))
    maps = [a_map(), Map("n", bpf.BPF_MAP_TYPE_HASH, 4, 8, 10, key=other, value=U64)]
    with pytest.raises(BindingError) as raised:
        bind_all([metric(value="calls"), metric(map="n")], maps)
    assert raised.value.messages == ("metric x: labels of its entries for maps m and n differ (op, slot and port)",)


def test_bit_fields_of_a_key_are_labels_in_the_byte_order_of_the_machine() -> None:
    byte = Type("int", "__be16", 2)
    key = Type(
        "struct", "k", 2, members=(Member("low", 0, byte, 3), Member("", 3, byte, 2), Member("high", 5, byte, 11))
    )
    bound = bind(metric(value="calls"), a_map(key=key))
    assert [(x.name, x.size, x.number) for x in bound.labels] == [
        ("high", 2, Number(0, 2, False, bits=11, shift=5)),
        ("low", 2, Number(0, 2, False, bits=3)),
    ]
    chain = bound.labels[0].chain
    assert chain is not None
    assert chain.bind(Names.empty())((1234).to_bytes(2, sys.byteorder)) == "1234"


def test_kstack_names_a_map_of_stacks() -> None:
    label = LabelSpec(name="op", field="op", decode=[DecodeStep(name="kstack", argument="stacks")])
    of = metric(value="calls", labels=[label])
    stacks = Map("stacks", bpf.BPF_MAP_TYPE_STACK_TRACE, 4, 1016, 1024)
    assert bind_all([of], [a_map(), stacks])[0].labels[0].chain is not None
    for maps, text in (
        ([a_map()], "no such map (the C text has: m)"),
        ([a_map(), replace(stacks, type=1)], "map type 1 has no stacks (BPF_STACK_TRACE makes them)"),
        (
            [a_map(), replace(stacks, flags=bpf.BPF_F_STACK_BUILD_ID)],
            "its stacks are build ids of user space (leave BPF_F_STACK_BUILD_ID out)",
        ),
    ):
        with pytest.raises(BindingError) as raised:
            bind_all([of], maps)
        assert str(raised.value) == f"metric x: label op: kstack stacks: {text}"
