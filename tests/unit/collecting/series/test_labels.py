"""Label text of raw keys: decoded once, kept while alive, looked up again where it can change."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.binding.bind import LabelField
from exporter.collecting.maps.table import Entries
from exporter.collecting.series.label_sets import LabelSet
from exporter.collecting.series.labels import LabelTexts, Rows
from exporter.decoders import Chain, Names, chain
from exporter.program import Type
from exporter.spec import DecodeStep

U32 = Type("int", "u32", 4)
COMM = Type("array", "", 8, element=Type("int", "char", 1, signed=True), count=8)


@pytest.fixture
def names(tmp_path: Path) -> Names:
    """A host without names."""
    return Names.open(proc=tmp_path, sys=tmp_path)


def entries(*keys: bytes, values: np.ndarray[Any, Any] | None = None) -> Entries:
    raw = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1 if keys else 4)
    return Entries(raw, np.zeros((len(keys), 1, 8), np.uint8) if values is None else values)


def label(name: str, type: Type, offset: int = 0, *decode: DecodeStep, source: Any = "key") -> LabelField:  # noqa: A002
    return LabelField(name, source, offset, type.size, chain(type, list(decode) or None))


def sets(rows: Rows) -> list[LabelSet | None]:
    """The label sets as text, None for a row without."""
    texts = iter(rows.labels.at(~rows.missing))
    return [None if missing else next(texts) for missing in rows.missing.tolist()]


class Changing:
    """A chain whose answers the test changes under the key, and that counts how often it is asked."""

    volatile = True

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.asked: Counter[int] = Counter()

    def bind(self, names: Names, length: int) -> Callable[[bytes], str | None]:  # noqa: ARG002
        def decode(raw: bytes) -> str | None:
            number = struct.unpack("I", raw)[0]
            self.asked[number] += 1
            return self.texts.get(number, f"#{number}")

        return decode


def test_each_row_has_its_texts_in_the_order_of_the_labels(names: Names) -> None:
    texts = LabelTexts([label("comm", COMM, 4), LabelField("dir", "const", const="in"), label("pid", U32)], names, [0])
    rows = texts.resolve(entries(struct.pack("I8s", 7, b"sshd"), struct.pack("I8s", 9, b"cron\0xx")), 0.0)
    assert sets(rows) == [("sshd", "in", "7"), ("cron", "in", "9")]
    assert np.count_nonzero(rows.missing) == 0


def test_the_same_keys_give_the_same_object(names: Names) -> None:
    texts = LabelTexts([label("pid", U32)], names, [0])
    first = texts.resolve(entries(b"\1\0\0\0", b"\2\0\0\0"), 0.0)
    assert texts.resolve(entries(b"\1\0\0\0", b"\2\0\0\0"), 1000.0) is first
    assert texts.resolve(entries(b"\2\0\0\0", b"\1\0\0\0"), 1000.0) is not first


def test_bytes_that_no_label_uses_change_nothing(names: Names) -> None:
    texts = LabelTexts([label("pid", U32)], names, [0])
    first = texts.resolve(entries(b"\1\0\0\0garbage1"), 0.0)
    assert texts.resolve(entries(b"\1\0\0\0garbage2"), 1.0) is first


def test_only_new_keys_are_decoded(names: Names) -> None:
    changing = Changing()
    field = LabelField("x", "key", 0, 4, cast(Chain, changing))
    texts = LabelTexts([field], names, [0])
    for now, keys in enumerate([(1, 2), (1, 2), (1, 2, 3), (3, 2, 1), (3,), (3, 1)]):
        texts.resolve(entries(*(struct.pack("I", key) for key in keys)), float(now))
    assert changing.asked[2] == 1
    assert changing.asked[3] == 1


def test_what_is_gone_is_forgotten(names: Names) -> None:
    changing = Changing()
    texts = LabelTexts([LabelField("x", "key", 0, 4, cast(Chain, changing))], names, [0])
    texts.resolve(entries(*(struct.pack("I", key) for key in range(100))), 0.0)
    for key in range(100, 2000):
        texts.resolve(entries(struct.pack("I", key)), 0.0)
    assert len(cast(Any, texts._fields[0])._codes) <= 3


def test_names_that_can_change_are_looked_up_again_after_a_minute(names: Names) -> None:
    changing = Changing()
    changing.texts[1] = "eth0"
    texts = LabelTexts([LabelField("if", "key", 0, 4, cast(Chain, changing)), label("n", U32)], names, [0])
    key = entries(struct.pack("I", 1))
    first = texts.resolve(key, 100.0)
    changing.texts[1] = "wan"
    assert texts.resolve(key, 159.9) is first
    assert sets(texts.resolve(key, 160.0)) == [("wan", "1")]
    assert sets(texts.resolve(key, 219.9)) == [("wan", "1")]
    assert changing.asked[1] == 2
    again = texts.resolve(key, 220.0)
    assert again is texts.resolve(key, 221.0)  # nothing changed: the templates stay
    assert changing.asked[1] == 3


def test_a_chain_without_answer_drops_the_row(names: Names) -> None:
    step = DecodeStep(name="map", argument={1: "one"}, unknown="drop")
    texts = LabelTexts([label("x", U32, 0, step)], names, [0])
    rows = texts.resolve(entries(b"\1\0\0\0", b"\2\0\0\0", b"\2\0\0\0"), 0.0)
    assert sets(rows) == [("one",), None, None]
    assert np.count_nonzero(rows.missing) == 2
    assert names.errors["map"] == 1  # lookups, not rows


def test_labels_are_cut_at_a_character_and_bad_utf8_is_replaced(names: Names) -> None:
    texts = LabelTexts([label("comm", COMM)], names, [0], label_length=5)
    rows = texts.resolve(entries("ééé".encode() + b"\0\0", b"\xffab\0\0\0\0\0"), 0.0)
    assert sets(rows) == [("éé",), ("\ufffdab",)]


def test_a_row_is_split_by_cpu_and_slots_have_the_numbers_of_possible_cpus(names: Names) -> None:
    texts = LabelTexts([LabelField("cpu", "cpu"), label("pid", U32)], names, possible=[0, 1, 4])
    keys = entries(b"\7\0\0\0", b"\x08\0\0\0")
    rows = texts.resolve(keys, 0.0, np.array([0, 0, 1]), np.array([0, 2, 1]))
    assert sets(rows) == [("0", "7"), ("4", "7"), ("1", "8")]


def test_labels_out_of_the_value(names: Names) -> None:
    values = np.array([[[5, 0, 0, 0]], [[6, 0, 0, 0]]], np.uint8)
    texts = LabelTexts([label("x", U32, 0, source="value")], names, [0])
    assert sets(texts.resolve(entries(b"\1\0\0\0", b"\2\0\0\0", values=values), 0.0)) == [("5",), ("6",)]
    values = np.array([[[5, 0, 0, 0]], [[7, 0, 0, 0]]], np.uint8)
    assert sets(texts.resolve(entries(b"\1\0\0\0", b"\2\0\0\0", values=values), 0.0)) == [("5",), ("7",)]


def test_no_labels_and_const_ones_alone(names: Names) -> None:
    assert sets(LabelTexts([], names, [0]).resolve(entries(b"\0\0\0\0"), 0.0)) == [()]
    const = LabelTexts([LabelField("a", "const", const="x")], names, [0])
    assert sets(const.resolve(entries(b"\0\0\0\0", b"\1\0\0\0"), 0.0)) == [("x",), ("x",)]


def test_an_empty_map_has_no_rows(names: Names) -> None:
    assert sets(LabelTexts([label("pid", U32)], names, [0]).resolve(entries(), 0.0)) == []


def test_rows_whose_decoding_failed_are_decoded_the_next_time(names: Names) -> None:
    class Failing(Changing):
        def bind(self, names: Names, length: int) -> Callable[[bytes], str | None]:
            answer = super().bind(names, length)

            def decode(raw: bytes) -> str | None:
                if not self.asked:
                    self.asked[0] += 1
                    raise OSError("once")
                return answer(raw)

            return decode

    field = LabelField("id", "key", 0, 4, cast("Chain", Failing()))
    texts = LabelTexts([field], names, [0])
    two = entries(struct.pack("I", 1), struct.pack("I", 2))
    with pytest.raises(OSError, match="once"):
        texts.resolve(two, 0.0)
    assert sets(texts.resolve(two, 1.0)) == [("#1",), ("#2",)]


NUMBERED = st.lists(st.lists(st.integers(0, 30), unique=True, min_size=1), min_size=2, max_size=8)


@settings(deadline=None, max_examples=200)
@given(NUMBERED)
def test_labels_of_keys_that_stay_are_those_of_all_decoded_anew(reads: list[list[int]]) -> None:
    """Of three labels one is the number, one a text that half of the keys have none of, and one is always the same."""
    even = [f"name {number}" if number % 2 else None for number in range(31)]

    class Naming:
        volatile = False

        def bind(self, names: Names, length: int) -> Callable[[bytes], str | None]:  # noqa: ARG002
            return lambda raw: even[struct.unpack("I", raw)[0]]

    fields = [label("n", U32), LabelField("name", "key", 0, 4, cast(Chain, Naming())), label("x", U32, 4)]
    following = LabelTexts(fields, Names.empty(), [0])
    for numbers in reads:
        read = entries(*(struct.pack("II", number, 7) for number in numbers))
        rows = following.resolve(read, 0.0)
        anew = LabelTexts(fields, Names.empty(), [0]).resolve(read, 0.0)
        assert sets(rows) == sets(anew)
        assert rows.missing.tolist() == anew.missing.tolist()


def test_only_keys_that_came_are_decoded(names: Names) -> None:
    chain_ = Changing()
    chain_.volatile = False
    texts = LabelTexts([LabelField("x", "key", 0, 4, cast(Chain, chain_))], names, [0])
    first = texts.resolve(entries(*(struct.pack("I", number) for number in range(10))), 0.0)
    chain_.texts = dict.fromkeys(range(20), "another")
    later = texts.resolve(entries(*(struct.pack("I", number) for number in range(1, 11))), 0.0)
    assert sets(later) == [*sets(first)[1:], ("another",)]
    assert set(chain_.asked.values()) == {1}
