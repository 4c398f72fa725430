"""Numbers out of raw values: exact, whatever their width, sign, place and byte order."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.binding.paths import Number
from exporter.collecting.maps import columns
from exporter.collecting.maps.table import Bytes

BIG = 2**63 + 1  # float64 has no such number


def records(*values: bytes) -> Bytes:
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), 1, -1)


@pytest.mark.parametrize(
    ("number", "raw", "value"),
    [
        (Number(0, 1, False), b"\xff", 255),
        (Number(0, 1, True), b"\xff", -1),
        (Number(3, 2, False), b"\0\0\0" + struct.pack("H", 65535), 65535),
        (Number(1, 4, True), b"\1" + struct.pack("i", -(2**31)), -(2**31)),
        (Number(5, 8, False), bytes(5) + struct.pack("Q", 2**64 - 1), 2**64 - 1),
        (Number(5, 8, True), bytes(5) + struct.pack("q", -(2**63)), -(2**63)),
        (Number(0, 4, False, ">"), struct.pack(">I", 0x0A000001), 0x0A000001),
        (Number(0, 2, False, "<"), struct.pack("<H", 0x1234), 0x1234),
    ],
)
def test_numbers_are_read_where_they_are(number: Number, raw: bytes, value: int) -> None:
    column = columns.numbers(records(raw, raw), number)
    assert column.tolist() == [[[value]], [[value]]]
    assert column.dtype == (np.int64 if number.signed else np.uint64)


def test_numbers_side_by_side() -> None:
    raw = struct.pack("=H5I", 9, *range(1, 6))
    assert columns.numbers(records(raw), Number(2, 4, False), 5).tolist() == [[[1, 2, 3, 4, 5]]]


@pytest.mark.parametrize(("reduce", "expected"), [("sum", BIG + 5), ("max", BIG), ("min", 2)])
def test_reducing_over_cpus_is_exact(reduce: columns.Reduce, expected: int) -> None:
    column = np.array([[[BIG], [3], [2]]], np.uint64)
    assert columns.over_cpus(column, reduce).tolist() == [[expected]]


@pytest.mark.parametrize("reduce", ["sum", "max", "min"])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("cpus", [1, 2, 3, 16, 17, 128])
def test_every_number_of_cpus_is_reduced_alike(cpus: int, slots: int, reduce: columns.Reduce) -> None:
    column = np.random.default_rng(cpus).integers(0, 2**56, (5, cpus, slots), dtype=np.uint64)
    before = column.copy()
    python: Callable[[Iterable[int]], int] = {"sum": sum, "max": max, "min": min}[reduce]  # type: ignore[assignment]
    expected = [[python(row[slot] for row in rows) for slot in range(slots)] for rows in column.tolist()]
    reduced = columns.over_cpus(column, reduce)
    assert reduced.tolist() == expected
    reduced[:] = 0  # nobody else's numbers
    assert (column == before).all()


@pytest.mark.parametrize(("reduce", "expected"), [("sum", [BIG + 1, 7]), ("max", [BIG, 7]), ("min", [1, 7])])
def test_reducing_over_equal_label_sets_is_exact(reduce: columns.Reduce, expected: list[int]) -> None:
    column = np.array([7, BIG, 99, 1], np.uint64)
    order, starts = np.array([1, 3, 0]), np.array([0, 2])  # the third row has no label set
    assert columns.grouped(column, order, starts, reduce).tolist() == expected


def test_no_rows_have_no_groups() -> None:
    empty = np.array([], np.intp)
    assert columns.grouped(np.array([], np.uint64), empty, empty, "sum").tolist() == []


def test_signed_and_unsigned_columns_stay_exact_together() -> None:
    small = columns.joined([np.array([2**62 + 1], np.uint64), np.array([-1], np.int64)])
    assert small.tolist() == [2**62 + 1, -1]
    large = columns.joined([np.array([2**64 - 1], np.uint64), np.array([-1], np.int64)])
    assert large.tolist() == [2**64 - 1, -1]
    assert columns.added(np.array([2**64 - 1], np.uint64), np.array([-1], np.int64)).tolist() == [2**64 - 2]


@pytest.mark.parametrize(
    ("values", "scale", "expected"),
    [
        ([3, 7], 1.0, [3, 7]),
        ([3, 7], 1e-9, [3e-9, 7e-9]),
        ([3], 1e-3, [0.003]),
        ([3], 4096.0, [12288]),
        ([2**60 + 1], 1024.0, [(2**60 + 1) * 1024]),
        ([3], 0.3, [3 * 0.3]),
        ([], 1024.0, []),
    ],
)
def test_scaling(values: list[int], scale: float, expected: list[float]) -> None:
    found = columns.scaled(np.array(values, np.uint64), scale).tolist()
    assert found == expected
    assert [type(x) for x in found] == [type(x) for x in expected]


@pytest.mark.parametrize("order", ["little", "big"])
@given(data=st.data())
def test_bit_fields_are_read_by_the_rules_of_btf(order: Literal["little", "big"], data: st.DataObject) -> None:
    """Against the rule in one line: the struct's bytes as one number, whose lowest (or highest) bit is number 0."""
    width = data.draw(st.sampled_from([1, 2, 4, 8]))
    bits = data.draw(st.integers(1, 8 * width))
    offset, shift, signed = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 7), st.booleans()))
    raw = data.draw(st.binary(min_size=16, max_size=16))
    place = 8 * offset + shift
    value = int.from_bytes(raw, order) >> (place if order == "little" else 128 - place - bits)
    value &= (1 << bits) - 1
    if signed and value >> (bits - 1):
        value -= 1 << bits
    number = Number(offset, width, signed, bits=bits, shift=shift)
    found = columns.bit_field(records(raw, raw), number, order)
    assert found.tolist() == [[value], [value]]
    assert found.dtype == f"{'i' if signed else 'u'}{width}"


def test_integers_beyond_64_bits_are_floats_once_scaled_down() -> None:
    column = columns.joined([np.array([2**63 + 2**20], np.uint64), np.array([-1], np.int64)])
    for scale in (1e-3, 0.75):
        down = columns.scaled(column, scale)
        assert down.dtype == np.float64  # of any other type only the whole part is shown
        assert down.tolist() == pytest.approx([(2**63 + 2**20) * scale, -scale])
