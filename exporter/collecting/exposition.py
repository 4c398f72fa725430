"""Families of columns -> the text formats that Prometheus reads: text 0.0.4 and OpenMetrics 1.0.

A family's lines are one ready bytes template, made once for its label sets; a scrape fills the values in by one `%`.
Escapes, order and spelling are those of prometheus_client, byte for byte, except that integers are written in full;
`le` is spelled as in OpenMetrics ("1.0") in both formats.
https://prometheus.io/docs/instrumenting/exposition_formats/
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from prometheus_client.utils import floatToGoString

from exporter.collecting.columns import Column
from exporter.collecting.label_sets import LabelSet

_HISTOGRAM_LABEL = "le"


class Series:
    """The label sets of a family, sorted and all different, with their text and the templates made of it.

    Whoever builds families keeps this object while the sets stay the same: then the templates are used again. When they
    change a little, `before` hands over the text of those that stay.
    """

    def __init__(self, names: tuple[str, ...], sets: Sequence[LabelSet], before: Series | None = None) -> None:
        """`names` are sorted, the values in `sets` in their order."""
        self.names = names
        self.sets = sets
        self._before = {} if before is None else before._texts
        self._texts: dict[LabelSet, bytes] = {}
        self._templates: dict[tuple[object, ...], bytes] = {}

    def lines(self, name: str, conversion: bytes) -> bytes:
        """The template of a counter or gauge: a line for each set, `conversion` (%d, %a or %b) for its value."""
        key = (name, conversion)
        if key not in self._templates:
            start, end = name.encode(), b" " + conversion + b"\n"
            if self.names:
                start, end = start + b"{", b"}" + end
            self._templates[key] = start + (end + start).join(self._label_texts()) + end
        return self._templates[key]

    def histogram_lines(self, name: str, bounds: tuple[float, ...], counts: bool, sum_conversion: bytes) -> bytes:
        """The template of a histogram: for each set its buckets, then, if `counts`, _count and _sum."""
        key = (name, bounds, counts, sum_conversion)
        if key not in self._templates:
            self._templates[key] = b"".join(self._histograms(name.encode(), bounds, counts, sum_conversion))
        return self._templates[key]

    def _histograms(
        self, name: bytes, bounds: tuple[float, ...], counts: bool, sum_conversion: bytes
    ) -> Iterator[bytes]:
        before = sum(label < _HISTOGRAM_LABEL for label in self.names)
        les = [b'le="' + _spelled(bound) + b'"' for bound in (*bounds, math.inf)]
        for texts in self.sets:
            left, right = _pairs(self.names[:before], texts[:before]), _pairs(self.names[before:], texts[before:])
            start = name + b"_bucket{" + (left + b"," if left else b"")
            end = (b"," + right if right else b"") + b"} %d\n"
            yield start + (end + start).join(les) + end
            if counts:
                labels = b",".join(part for part in (left, right) if part)
                labels = b"{" + labels + b"}" if labels else b""
                yield name + b"_count" + labels + b" %d\n" + name + b"_sum" + labels + b" " + sum_conversion + b"\n"

    def _label_texts(self) -> Iterable[bytes]:
        if not self._texts:
            known, names = self._before, self.names
            self._texts = {texts: known[texts] if texts in known else _pairs(names, texts) for texts in self.sets}
            self._before = {}
        return self._texts.values()


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric family.

    name    in full, a counter's with its _total
    values  counter and gauge: (n,), one for each label set; histogram: (n, bounds + 1) cumulative counts, +Inf last
    bounds  histogram: the finite upper bounds
    sums    histogram: (n,), None if nobody counts the sum
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    series: Series
    values: Column
    bounds: tuple[float, ...] = ()
    sums: Column | None = None


def family(
    name: str,
    type: Literal["counter", "gauge"],  # noqa: A002 (the format's word)
    help: str,  # noqa: A002
    labels: Sequence[str],
    samples: Iterable[tuple[Sequence[str], float]],
) -> Family:
    """A family out of single samples, (label values in the order of `labels`, value), where there are no columns."""
    names = tuple(sorted(labels))
    places = [list(labels).index(label) for label in names]
    rows = sorted((tuple(texts[place] for place in places), value) for texts, value in samples)
    values = [value for _, value in rows]
    whole = all(isinstance(value, int) for value in values)
    return Family(
        name,
        type,
        help,
        Series(names, [texts for texts, _ in rows]),
        np.array(values, object if whole else np.float64),
    )


def render(families: Iterable[Family], openmetrics: bool) -> bytes:
    """The page. A family without series has its HELP and TYPE all the same."""
    parts: list[bytes] = []
    for f in families:
        parts.append(_header(f, openmetrics))
        if len(f.series.sets):
            parts.append(_histogram(f) if f.type == "histogram" else _samples(f))
    if openmetrics:
        parts.append(b"# EOF\n")
    return b"".join(parts)


def _header(f: Family, openmetrics: bool) -> bytes:
    name, kind = f.name, str(f.type)
    text = f.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
        if f.type == "counter":
            # OpenMetrics names a counter's family without the suffix, and knows no counter that has none.
            name, kind = (name[: -len("_total")], kind) if name.endswith("_total") else (name, "unknown")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n".encode("utf-8", "replace")


def _samples(f: Family) -> bytes:
    conversion, values = _convertible(f.values)
    return f.series.lines(f.name, conversion) % tuple(values)


def _histogram(f: Family) -> bytes:
    # As prometheus_client: without a sum no count either (OpenMetrics wants both or none), and neither where a bound is
    # negative, because then the sum can go down.
    if f.sums is None or f.bounds[0] < 0:
        return f.series.histogram_lines(f.name, f.bounds, False, b"") % tuple(f.values.ravel().tolist())
    conversion, sums = _convertible(f.sums)
    width = f.values.shape[1]
    table = np.empty((len(sums), width + 2), object)
    table[:, :width] = f.values
    table[:, width] = f.values[:, -1]
    table[:, width + 1] = sums
    return f.series.histogram_lines(f.name, f.bounds, True, conversion) % tuple(table.ravel().tolist())


def _convertible(column: Column) -> tuple[bytes, list[Any]]:
    """How `%` writes the values of a column, and the values."""
    values: list[Any] = column.tolist()
    if column.dtype.kind != "f":
        return b"%d", values
    if np.isfinite(column).all():
        return b"%a", values  # repr: the shortest text that reads back the same
    return b"%b", [_spelled(value) for value in values]


def _pairs(names: tuple[str, ...], texts: LabelSet) -> bytes:
    """name="value",... escaped, with % doubled for the template."""
    pairs = ",".join([f'{name}="{_escaped(text)}"' for name, text in zip(names, texts, strict=True)])
    return pairs.encode("utf-8", "replace").replace(b"%", b"%%")


def _escaped(text: str) -> str:
    if text.isalnum():
        return text
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _spelled(value: float) -> bytes:
    """As Go and OpenMetrics spell a float: 1.0, 1e+06, +Inf, NaN."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text.encode()
