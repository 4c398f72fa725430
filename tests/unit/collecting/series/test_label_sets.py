"""Label sets as columns of codes: found by what they are, sorted by their text, forgotten when they are dead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.collecting.series import label_sets
from exporter.collecting.series.interned import NUMBERS, StringTable
from exporter.collecting.series.label_sets import Index, LabelSet, LabelSets, together

TEXT = st.integers(0, 2**64).map(str) | st.sampled_from(["", "0", "00", "01", "-1", "a", "é", "٣", "10", "9", "\0"])


def coded(words: StringTable, sets: Sequence[LabelSet], labels: int) -> LabelSets:
    codes = np.array([[words.code(text) for text in each] for each in sets], np.int64).reshape(len(sets), labels)
    return LabelSets(words, list(codes.T), len(sets))


@given(st.lists(TEXT))
def test_a_code_is_one_text_and_a_text_one_code(texts: list[str]) -> None:
    words = StringTable()
    codes = [words.code(text) for text in texts]
    assert [words.text(code) for code in codes] == texts
    assert [words.code(text) for text in texts] == codes
    assert len(set(codes)) == len(set(texts))


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.sampled_from(["i8", "u8", ">i8", "i4", "u4", ">u2", "i1", "u1"]))
def test_numbers_have_the_codes_of_their_text(numbers: list[int], kind: str) -> None:
    words = StringTable()
    values = np.array(numbers, np.int64).astype(np.dtype(kind))
    assert words.numbers(values).tolist() == [words.code(str(value)) for value in values.tolist()]


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT)))
def test_sets_are_sorted_as_their_text_is_and_each_is_there_once(sets: list[LabelSet]) -> None:
    distinct, places = coded(StringTable(), sets, 2).sorted_distinct()
    assert list(distinct) == sorted(set(sets))
    assert list(distinct.at(places)) == sets


def test_numbers_are_sorted_as_text_without_making_it() -> None:
    numbers = [0, 1, 9, 10, 11, 99, 100, 101, 10**17, NUMBERS - 1, 123456789]
    sets = LabelSets(StringTable(), [np.array(numbers, np.int64)], len(numbers))
    assert list(sets.sorted_distinct()[0]) == sorted((str(number),) for number in numbers)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), unique=True), st.lists(st.tuples(TEXT, TEXT)))
def test_sets_are_found_where_they_are(known: list[LabelSet], wanted: list[LabelSet]) -> None:
    words = StringTable()
    found = Index(coded(words, known, 2)).find(coded(words, wanted + known, 2))
    assert found.tolist() == [known.index(each) if each in known else -1 for each in wanted + known]


def test_nothing_is_found_among_none() -> None:
    """Constant columns of nothing, as a family has before its first series."""
    words = StringTable()
    none = LabelSets(words, [label_sets.constant(words.code("sent"), 0)], 0)
    some = LabelSets(words, [label_sets.constant(words.code("sent"), 2)], 2)
    assert Index(none).find(some).tolist() == [-1, -1]


def test_sets_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sets, "hashes", lambda _, count: np.full(count, 2**64 - 1, np.uint64))
    words = StringTable()
    known = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "3")]
    found = Index(coded(words, known, 2)).find(coded(words, [*reversed(known), ("c", "1")], 2))
    assert found.tolist() == [3, 2, 1, 0, -1]


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), unique=True), st.integers(0, 20))
def test_an_index_that_goes_on_finds_old_and_new(sets: list[LabelSet], first: int) -> None:
    words = StringTable()
    before = Index(coded(words, sets[:first], 2))
    after = Index(coded(words, sets, 2), before)
    assert after.find(coded(words, sets, 2)).tolist() == list(range(len(sets)))


def test_no_labels_are_one_set() -> None:
    words = StringTable()
    sets = LabelSets(words, [], 3)
    distinct, places = sets.sorted_distinct()
    assert list(distinct) == [()]
    assert places.tolist() == Index(distinct).find(sets).tolist() == [0, 0, 0]
    assert len(together(sets, sets)) == 6


def test_only_texts_that_are_used_are_kept() -> None:
    words = StringTable()
    columns = [words.code(f"name {number}") for number in range(30_000)]
    assert words.crowded
    words.keep([np.array(columns[:2], np.int64), np.array([columns[7], 443], np.int64)])
    assert not words.crowded
    assert [words.text(code) for code in (columns[0], columns[7], 443)] == ["name 0", "name 7", "443"]
    assert columns[3] not in words
    assert words.code("name 3") not in columns  # never given to another text
