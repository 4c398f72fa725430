"""Keys of two reads of a map: each is found where it was, whatever came, went or moved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.collecting.maps import key_matcher
from exporter.collecting.maps.key_matcher import KeyMatcher
from exporter.collecting.maps.table import Bytes

KEYS = st.lists(st.integers(0, 40), unique=True)


def raw(numbers: list[int], size: int) -> Bytes:
    """Keys that differ in their last two bytes, or in the only one."""
    text = b"".join(number.to_bytes(size, "big") for number in numbers)
    return np.frombuffer(text, np.uint8).reshape(len(numbers), size)


def expected(now: list[int], before: list[int]) -> list[int]:
    return [before.index(number) if number in before else -1 for number in now]


@settings(deadline=None)
@given(KEYS, KEYS, st.sampled_from([1, 4, 8, 13, 40]))
def test_each_key_is_found_where_it_was(now: list[int], before: list[int], size: int) -> None:
    matcher = KeyMatcher()
    earlier, later = raw(before, size), raw(now, size)
    assert matcher.match(later, earlier).tolist() == expected(now, before)
    assert matcher.match(earlier, later).tolist() == expected(before, now)


@settings(deadline=None)
@given(KEYS, KEYS, st.integers(1, 5))
def test_keys_of_one_hash_are_told_apart(now: list[int], before: list[int], hashes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_matcher, "hashes", lambda words, _: words[0].byteswap() % np.uint64(hashes) << np.uint64(60))
        assert KeyMatcher().match(raw(now, 8), raw(before, 8)).tolist() == expected(now, before)


@pytest.mark.parametrize("size", [4, 16])
def test_many_keys_of_which_some_are_exchanged(size: int) -> None:
    before = list(range(20_000))
    now = [number for number in before if number % 100] + list(range(50_000, 50_200))
    found = KeyMatcher().match(raw(now, size), raw(before, size))
    assert found.tolist() == [number if number < 50_000 else -1 for number in now]
