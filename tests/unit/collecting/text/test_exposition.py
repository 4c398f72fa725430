"""The writer against prometheus_client: the same bytes but for the spelling of values, and both parsers read it."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import exposition as text_format
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.utils import floatToGoString

from exporter.collecting.text.exposition import Family, family, render
from exporter.collecting.text.templates import Series

# No colon: prometheus_client 0.26 writes it as _ in the sample names of OpenMetrics, but not in TYPE.
NAME = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)
LABEL = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(lambda name: name not in ("le", "quantile"))
TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "\\n", "%", "%d", "{}", ",", 'a="b"', "é", "𝕊", " ", "#", "}"]
)
WHOLE = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**64 - 1)
FLOAT = st.floats()


@st.composite
def families(draw: Callable[..., Any]) -> list[Family]:
    found = []
    for name in draw(st.lists(NAME, min_size=0, max_size=4, unique=True)):
        kind = draw(st.sampled_from(["counter", "plain counter", "gauge", "histogram"]))
        names = tuple(sorted(draw(st.lists(LABEL, max_size=3, unique=True))))
        sets = sorted(draw(st.sets(st.tuples(*[TEXT] * len(names)), min_size=0, max_size=4)))
        series, count, text = Series(names, sets), len(sets), draw(TEXT)
        if kind == "histogram":
            found.append(draw(histograms(f"{name}_h", text, series)))
        elif kind == "gauge":
            numbers = draw(st.sampled_from([(WHOLE, np.int64), (FLOAT, np.float64), (COUNT, np.uint64)]))
            values = np.array(draw(st.lists(numbers[0], min_size=count, max_size=count)), numbers[1])
            found.append(Family(f"{name}_g", "gauge", text, series, values))
        else:
            values = np.array(draw(st.lists(COUNT, min_size=count, max_size=count)), np.uint64)
            found.append(Family(f"{name}_c" + "_total" * (kind == "counter"), "counter", text, series, values))
    return found


@st.composite
def histograms(draw: Callable[..., Any], name: str, text: str, series: Series) -> Family:
    count = len(series.sets)
    bounds = tuple(sorted(draw(st.sets(st.floats(-1e30, 1e30).map(lambda bound: bound + 0.0), min_size=1, max_size=5))))
    slots = draw(
        st.lists(
            st.lists(st.integers(0, 2**60), min_size=len(bounds) + 1, max_size=len(bounds) + 1),
            min_size=count,
            max_size=count,
        )
    )
    cumulative = np.cumsum(np.array(slots, np.uint64).reshape(count, len(bounds) + 1), axis=1, dtype=np.uint64)
    sums = np.array(draw(st.lists(st.floats(0, 1e300), min_size=count, max_size=count)), np.float64)
    return Family(name, "histogram", text, series, cumulative, bounds, draw(st.sampled_from([sums, None])))


class Registry:
    """What prometheus_client renders: the same families as its own objects."""

    def __init__(self, families: Sequence[Family], openmetrics: bool) -> None:
        self._families = families
        self._openmetrics = openmetrics

    def collect(self) -> Iterator[Metric]:
        for f in self._families:
            metric: Any
            if f.type == "histogram":
                metric = HistogramMetricFamily(f.name, f.help, labels=f.series.names)
                for row, texts in enumerate(f.series.sets):
                    les = [floatToGoString(bound) for bound in (*f.bounds, math.inf)]  # type: ignore[no-untyped-call]
                    total = None if f.sums is None else f.sums[row]
                    metric.add_metric(texts, list(zip(les, f.values[row].tolist(), strict=True)), total)
                yield metric
                continue
            if f.type == "gauge":
                metric = GaugeMetricFamily(f.name, f.help, labels=f.series.names)
            elif f.name.endswith("_total"):
                metric = CounterMetricFamily(f.name, f.help, labels=f.series.names)
            elif self._openmetrics:
                metric = UnknownMetricFamily(f.name, f.help, labels=f.series.names)
            else:
                metric = PlainCounter(f.name, f.help, f.series.names)
            for texts, value in zip(f.series.sets, f.values.tolist(), strict=True):
                metric.add_metric(texts, value)
            yield metric


class PlainCounter(GaugeMetricFamily):
    """A counter without _total in text 0.0.4: prometheus_client has none, so it is a gauge of another type."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        super().__init__(name, text, labels=labels)
        self.type = "gauge"


def without_values(page: bytes) -> list[str]:
    """The lines without the values at the ends of samples."""
    return [line if line.startswith("#") else line.rsplit(" ", 1)[0] for line in page.decode().split("\n")]


def values(page: bytes) -> list[float]:
    return [float(line.rsplit(" ", 1)[1]) for line in page.decode().split("\n") if line and not line.startswith("#")]


def same(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return len(ours) == len(theirs) and all(a == b or (a != a and b != b) for a, b in zip(ours, theirs, strict=True))


@settings(max_examples=150, deadline=None)
@given(families())
def test_text_is_what_prometheus_client_writes(drawn: list[Family]) -> None:
    ours = render(drawn, openmetrics=False)
    theirs = text_format.generate_latest(Registry(drawn, openmetrics=False))
    plain = {f.name for f in drawn if f.type == "counter" and not f.name.endswith("_total")}
    expected = [
        line.replace(" gauge", " counter")
        if line.split(" ")[:2] == ["#", "TYPE"] and line.split(" ")[2] in plain
        else line
        for line in without_values(theirs)
    ]
    assert without_values(ours) == expected
    assert same(values(ours), values(theirs))


@settings(max_examples=150, deadline=None)
@given(families())
def test_openmetrics_is_what_prometheus_client_writes(drawn: list[Family]) -> None:
    ours = render(drawn, openmetrics=True)
    theirs = openmetrics_format.generate_latest(Registry(drawn, openmetrics=True))  # type: ignore[no-untyped-call]
    assert without_values(ours) == without_values(theirs)
    assert same(values(ours), values(theirs))


@settings(max_examples=150, deadline=None)
@given(families())
def test_both_parsers_read_it_back(drawn: list[Family]) -> None:
    for openmetrics, parse in ((False, parse_text), (True, parse_openmetrics)):
        page = render(drawn, openmetrics).decode()
        labels = {
            tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            for metric in parse(page)
            for sample in metric.samples
        }
        expected = {tuple(zip(f.series.names, texts, strict=True)) for f in drawn for texts in f.series.sets}
        assert labels == expected


def test_integers_are_exact_and_floats_read_back_the_same() -> None:
    page = render(
        [
            family("a_total", "counter", "h", (), [((), 2**64 - 1)]),
            family("b", "gauge", "h", ("x",), [(("1",), 0.1), (("2",), 1e-09), (("3",), math.inf), (("4",), math.nan)]),
        ],
        openmetrics=False,
    )
    assert page.decode().split("\n")[2:3] == ["a_total 18446744073709551615"]
    assert page.decode().split("\n")[5:9] == ['b{x="1"} 0.1', 'b{x="2"} 1e-09', 'b{x="3"} +Inf', 'b{x="4"} NaN']


def test_le_is_spelled_as_openmetrics_does_and_sorted_among_the_labels() -> None:
    series = Series(("family", "role"), [("ipv4", "client")])
    f = Family("h", "histogram", "h", series, np.array([[1, 3, 3]]), (1.0, 2e6), np.array([4]))
    expected = [
        'h_bucket{family="ipv4",le="1.0",role="client"} 1',
        'h_bucket{family="ipv4",le="2e+06",role="client"} 3',
        'h_bucket{family="ipv4",le="+Inf",role="client"} 3',
        'h_count{family="ipv4",role="client"} 3',
        'h_sum{family="ipv4",role="client"} 4',
    ]
    for openmetrics in (False, True):
        assert render([f], openmetrics).decode().split("\n")[2:7] == expected


def test_openmetrics_ends_with_eof_and_names_counters_without_their_suffix() -> None:
    page = render([family("a_total", "counter", 'say "hi"', (), [((), 1)])], openmetrics=True)
    assert page == b'# HELP a say \\"hi\\"\n# TYPE a counter\na_total 1\n# EOF\n'


def test_promtool_accepts_a_large_page() -> None:
    bounds = tuple(2.0**i / 1e9 for i in range(27))
    sets = [(str(i), f'q"\\{i}\n%') for i in range(500)]
    counts = np.cumsum(np.arange(500 * 28, dtype=np.uint64).reshape(500, 28), axis=1)
    series = Series(("pid", "port"), sorted(sets))
    page = render(
        [
            Family("ebpf_sends_total", "counter", "Sends.", series, np.arange(500, dtype=np.uint64)),
            Family("ebpf_latency_seconds", "histogram", "Time.", series, counts, bounds, np.arange(500) / 7),
            Family("ebpf_connections", "gauge", "Now.", series, np.arange(500, dtype=np.int64) - 250),
        ],
        openmetrics=False,
    )
    assert len(re.findall(rb"\n", page)) == 500 * 32 + 6
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_samples_given_in_any_order_are_sorted() -> None:
    f = family("a", "gauge", "h", ("z", "a"), [(("1", "b"), 1), (("0", "c"), 2), (("2", "a"), 3)])
    assert f.series.names == ("a", "z")
    assert list(f.series.sets) == [("a", "2"), ("b", "1"), ("c", "0")]
    assert f.values.tolist() == [3, 1, 2]


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_family_without_series_has_its_header(openmetrics: bool) -> None:
    page = render([Family("a", "gauge", "h", Series(("x",), []), np.array([], np.int64))], openmetrics)
    assert page.startswith(b"# HELP a h\n# TYPE a gauge\n")
