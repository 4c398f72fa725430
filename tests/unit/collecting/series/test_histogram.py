"""Slots to cumulative counts, checked against counting the values themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporter.binding.buckets import Buckets
from exporter.binding.paths import Number
from exporter.collecting.series import histogram

SLOT = Number(0, 4, False)


def in_key(
    slots: list[int], counts: list[int], groups: list[int], buckets: Buckets
) -> tuple[list[list[int]], list[int] | None]:
    found, sums = histogram.from_rows(
        np.array(slots, np.uint64), np.array(counts, np.uint64), np.array(groups, np.intp), max(groups) + 1, buckets
    )
    return found.tolist(), None if sums is None else sums.tolist()


def test_slots_in_the_value_add_up() -> None:
    buckets = Buckets(bounds=(1.0, 2.0, 4.0), first=0, slots=SLOT, count=4)
    found = histogram.cumulative(np.array([[1, 2, 3, 4], [0, 0, 0, 5]], np.uint64), buckets)
    assert found.tolist() == [[1, 3, 6, 10], [0, 0, 0, 5]]


def test_below_min_is_in_the_first_bucket_and_above_max_in_inf() -> None:
    buckets = Buckets(bounds=(4.0, 8.0), first=2, slots=SLOT, count=6)
    found = histogram.cumulative(np.array([[1, 10, 100, 1000, 10_000, 100_000]], np.uint64), buckets)
    assert found.tolist() == [[111, 1111, 111_111]]


def test_the_same_with_the_slot_in_the_key() -> None:
    buckets = Buckets(bounds=(4.0, 8.0), first=2, slot=SLOT)
    found, sums = in_key([0, 1, 2, 3, 4, 77], [1, 10, 100, 1000, 10_000, 100_000], [0] * 6, buckets)
    assert found == [[111, 1111, 111_111]]
    assert sums is None


def test_counts_stay_exact_above_the_floats() -> None:
    buckets = Buckets(bounds=(1.0,), first=0, slot=SLOT)
    found, _ = in_key([0, 0], [2**53, 1], [0, 0], buckets)
    assert found == [[2**53 + 1, 2**53 + 1]]


def test_the_sum_slot_is_a_sum_and_no_bucket() -> None:
    buckets = Buckets(bounds=(1.0, 2.0), first=0, slot=SLOT, sum_slot=28)
    found, sums = in_key([0, 28, 1, 28], [5, 1000, 6, 7], [0, 0, 1, 1], buckets)
    assert found == [[5, 5, 5], [0, 6, 6]]
    assert sums == [1000, 7]


def test_slots_that_are_bounds() -> None:
    buckets = Buckets(bounds=(0.01, 0.02, 0.05), first=0, slot=SLOT, slot_bounds=(10, 20, 50))
    found, _ = in_key([10, 20, 50, 51, 15, 2**64 - 1], [1, 2, 4, 8, 16, 32], [0] * 6, buckets)
    assert found == [[1, 19, 23, 63]]


def test_rows_without_a_label_set_count_nowhere() -> None:
    buckets = Buckets(bounds=(1.0,), first=0, slot=SLOT, sum_slot=9)
    found, sums = in_key([0, 0, 9, 9], [1, 2, 3, 4], [0, -1, 0, -1], buckets)
    assert (found, sums) == ([[1, 1]], [3])


def test_rows_of_one_label_set_are_added() -> None:
    found = histogram.by_group(np.array([[1, 2], [10, 20], [5, 5], [100, 200]], np.uint64), np.array([2, 0, -1, 2]), 4)
    assert found.tolist() == [[10, 20], [0, 0], [101, 202], [0, 0]]


@given(st.lists(st.integers(0, 2**20), max_size=60), st.integers(0, 10), st.integers(0, 12))
def test_each_bucket_counts_the_values_up_to_its_bound(values: list[int], low: int, more: int) -> None:
    """Against the definition: le = 2^i counts all values up to 2^i."""
    count = 24  # slots of an array: 2^0 to 2^22 and the overflow
    slots = np.zeros((1, count), np.uint64)
    for value in values:
        slots[0, next((i for i in range(count - 1) if value <= 2**i), count - 1)] += 1
    bounds = tuple(2.0**i for i in range(low, low + more + 1))
    expected = [sum(value <= bound for value in values) for bound in bounds] + [len(values)]
    assert histogram.cumulative(slots, Buckets(bounds=bounds, first=low, slots=SLOT, count=count)).tolist() == [
        expected
    ]
    found, _ = histogram.from_rows(
        np.arange(count, dtype=np.uint64),
        slots[0],
        np.zeros(count, np.intp),
        1,
        Buckets(bounds=bounds, first=low, slot=SLOT),
    )
    assert found.tolist() == [expected]
