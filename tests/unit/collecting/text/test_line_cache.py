"""Kept lines against lines made anew: whatever changes between two collections, the text is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.collecting.series.interned import StringTable
from exporter.collecting.series.label_sets import LabelSets
from exporter.collecting.series.labels import Rows
from exporter.collecting.series.limit import Limit, arrange
from exporter.collecting.text import exposition, line_cache
from exporter.collecting.text.exposition import Family, render
from exporter.collecting.text.line_cache import LineCache
from exporter.collecting.text.templates import Series

LABEL = st.integers(0, 12).map(str) | st.sampled_from(["%", "%d", "\n", '"', "é", "", "\\"])
KINDS = {
    "u8": st.integers(0, 2**64 - 1) | st.integers(0, 12),
    "i8": st.integers(-(2**63), 2**63 - 1) | st.integers(-12, 12),
    "f8": st.floats() | st.integers(0, 12).map(float),
}


@dataclass
class History:
    """Collections of one family: which label sets it has, and a value for each line."""

    kind: str
    sums: str
    bounds: int  # 0 for a gauge
    collections: list[tuple[dict[tuple[str, str], list[Any]], bool]]  # and whether each is written


@st.composite
def histories(draw: Any) -> History:
    kind, sums = draw(st.sampled_from(list(KINDS))), draw(st.sampled_from(list(KINDS)))
    bounds = draw(st.sampled_from([0, 0, 1, 3]))
    kind = "u8" if bounds else kind
    values = st.lists(KINDS[kind], min_size=bounds + 1, max_size=bounds + 1)
    cells = st.tuples(values, KINDS[sums]).map(lambda cell: [*cell[0], cell[1]])
    collection = st.tuples(st.dictionaries(st.tuples(LABEL, LABEL), cells), st.sampled_from([True, True, False]))
    return History(kind, sums, bounds, draw(st.lists(collection, min_size=1, max_size=6)))


def family(history: History, series: Series, values: np.ndarray[Any, Any], kept: LineCache | None) -> Family:
    numbers = np.array(values[:, :-1].tolist(), history.kind).reshape(len(values), history.bounds + 1)
    if not history.bounds:
        return Family("g", "gauge", "h", series, numbers[:, 0], lines=kept)
    sums = np.array(values[:, -1].tolist(), history.sums)
    bounds = tuple(float(bound) for bound in range(history.bounds))
    return Family("h", "histogram", "h", series, numbers, bounds, sums, kept)


@settings(deadline=None, max_examples=100)
@given(histories(), st.sampled_from([1, 4, 7, 4096]))
def test_kept_lines_are_those_made_anew(history: History, block: int) -> None:
    words, limit, kept = StringTable(), Limit(6), LineCache()
    series: Series | None = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_cache, "BLOCK", block)
        for collection, written in history.collections:
            codes = np.array([[words.code(text) for text in each] for each in collection], np.int64).reshape(-1, 2)
            rows = Rows(LabelSets(words, list(codes.T), len(codes)), np.zeros(len(codes), bool))
            how = arrange([rows], [(False, False)], limit)
            if series is None or how.sets != series.sets:
                series = Series(("a", "z"), how.sets)
                kept.arrange(series, how.previous)
            if not written:
                continue
            values = np.zeros((len(how.sets), history.bounds + 2), object)
            values[how.group] = np.array(list(collection.values()), object).reshape(-1, history.bounds + 2)
            expected = render([family(history, series, values, None)], openmetrics=False)
            for _ in range(2):
                assert render([family(history, series, values, kept)], openmetrics=False) == expected


def numbers(*values: int, series: Series, kept: LineCache) -> list[bytes | Any]:
    f = Family("g", "gauge", "h", series, np.array(values, np.uint64), lines=kept)
    (text,) = exposition.write([f])
    return text.plain[1:]


def test_blocks_that_stay_the_same_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_cache, "BLOCK", 2)
    series, kept = Series(("x",), [(str(number),) for number in range(5)]), LineCache()
    first = numbers(1, 2, 3, 4, 5, series=series, kept=kept)
    second = numbers(1, 2, 3, 9, 5, series=series, kept=kept)
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, False, True]
    # What is being sent stays as it is.
    assert b"".join(first) == b'g{x="0"} 1\ng{x="1"} 2\ng{x="2"} 3\ng{x="3"} 4\ng{x="4"} 5\n'
    assert b"".join(second) == b'g{x="0"} 1\ng{x="1"} 2\ng{x="2"} 3\ng{x="3"} 9\ng{x="4"} 5\n'


def test_many_small_blocks_become_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_cache, "BLOCK", 8)
    kept = LineCache()
    for count in range(1, 60):
        series = Series(("x",), [(str(number),) for number in range(count)])
        kept.arrange(series, np.append(np.arange(count - 1), -1))
        page = numbers(*range(count), series=series, kept=kept)
    assert b"".join(page) == b"".join(b'g{x="%d"} %d\n' % (number, number) for number in range(59))
    assert len(page) <= 20


def test_a_collection_that_was_not_written_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_cache, "BLOCK", 1)
    kept = LineCache()
    before = numbers(1, 7, 3, series=Series(("x",), [("1",), ("2",), ("3",)]), kept=kept)
    kept.arrange(Series(("x",), [("2",), ("3",), ("4",)]), np.array([1, 2, -1]))
    third = Series(("x",), [("2",), ("4",), ("5",)])
    kept.arrange(third, np.array([0, 2, -1]))
    page = numbers(7, 8, 9, series=third, kept=kept)
    assert b"".join(page) == b'g{x="2"} 7\ng{x="4"} 8\ng{x="5"} 9\n'
    assert page[0] is before[1], "cut out"


def test_series_that_were_not_arranged_are_written_anew() -> None:
    kept = LineCache()
    numbers(1, 2, series=Series(("x",), [("1",), ("2",)]), kept=kept)
    page = numbers(2, 1, series=Series(("x",), [("2",), ("1",)]), kept=kept)
    assert b"".join(page) == b'g{x="2"} 2\ng{x="1"} 1\n'
