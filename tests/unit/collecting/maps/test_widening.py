"""Narrow counters to 64-bit totals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.collecting.maps.table import Bytes
from exporter.collecting.maps.widening import Widening


def keys(*numbers: int) -> Bytes:
    return np.array(numbers, np.uint32).view(np.uint8).reshape(-1, 4)


def column(*values: int, dtype: type = np.uint32) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    return np.array(values, np.uint32).astype(dtype).reshape(-1, 1)


def test_the_first_read_is_the_value_itself() -> None:
    assert Widening(keys_stay=False).totals(keys(1, 2), column(5, 2**32 - 1)).tolist() == [[5], [2**32 - 1]]


@pytest.mark.parametrize("keys_stay", [False, True])
def test_a_counter_that_wraps_goes_on(keys_stay: bool) -> None:
    widening = Widening(keys_stay)
    widening.totals(keys(1), column(2**32 - 10))
    assert widening.totals(keys(1), column(7)).tolist() == [[2**32 + 7]]
    assert widening.totals(keys(1), column(8)).tolist() == [[2**32 + 8]]


def test_a_key_that_was_deleted_and_came_back_starts_again() -> None:
    widening = Widening(keys_stay=False)
    widening.totals(keys(1), column(1000))
    assert widening.totals(keys(1), column(3)).tolist() == [[3]]
    widening.totals(keys(2), column(1))
    assert widening.totals(keys(1), column(9)).tolist() == [[9]]


def test_totals_follow_their_keys() -> None:
    widening = Widening(keys_stay=False)
    widening.totals(keys(1, 2), column(2**32 - 1, 50))
    assert widening.totals(keys(2, 3, 1), column(51, 4, 1)).tolist() == [[51], [4], [2**32 + 1]]


def test_signed_counters_wrap_as_unsigned_ones() -> None:
    widening = Widening(keys_stay=True)
    first = np.array([[2**31 - 1]], np.int32)
    widening.totals(keys(0), first)
    assert widening.totals(keys(0), np.array([[-(2**31) + 4]], np.int32)).tolist() == [[2**31 + 4]]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20), st.sampled_from([1, 2, 4]))
def test_any_steps_below_half_the_range_add_up(steps: list[int], width: int) -> None:
    widening = Widening(keys_stay=False)
    total = 0
    for step in steps:
        total += step % 2 ** (8 * width - 1)
        narrow = np.array([[total % 2 ** (8 * width)]], np.uint64).astype(f"u{width}")
        assert widening.totals(keys(7), narrow).tolist() == [[total]]


def test_counters_in_bit_fields_wrap_where_their_bits_end() -> None:
    widening = Widening(keys_stay=True, bits=12)
    widening.totals(keys(0), column(4095))
    assert widening.totals(keys(0), column(4)).tolist() == [[4100]]
    signed = Widening(keys_stay=True, bits=4)
    signed.totals(keys(0), np.array([[7]], np.int32))
    assert signed.totals(keys(0), np.array([[-8]], np.int32)).tolist() == [[8]]
