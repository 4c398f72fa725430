"""Families of columns -> the text formats that Prometheus reads: text 0.0.4 and OpenMetrics 1.0.

A family's lines are kept from collection to collection (line_cache.py), or made from a template by one `%`.
Escapes, order and spelling are those of prometheus_client, byte for byte, except that integers are written in full;
`le` is spelled as in OpenMetrics ("1.0") in both formats.
https://prometheus.io/docs/instrumenting/exposition_formats/
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from exporter.collecting.maps.columns import Column
from exporter.collecting.text.decimals import float_text
from exporter.collecting.text.line_cache import Cells, LineCache
from exporter.collecting.text.templates import ALL, Series, histograms, samples


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric family.

    name    in full, a counter's with its _total
    values  counter and gauge: (n,), one for each label set; histogram: (n, bounds + 1) cumulative counts, +Inf last
    bounds  histogram: the finite upper bounds
    sums    histogram: (n,), None if the program does not count the sum
    lines   the text of the last collection, where it is kept
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    series: Series
    values: Column
    bounds: tuple[float, ...] = ()
    sums: Column | None = None
    lines: LineCache | None = None


def family(
    name: str,
    type: Literal["counter", "gauge"],  # noqa: A002 (the format's word)
    help: str,  # noqa: A002
    labels: Sequence[str],
    samples: Iterable[tuple[Sequence[str], float]],
) -> Family:
    """Return a family of single samples: (label values in the order of `labels`, value)."""
    names = tuple(sorted(labels))
    order = [list(labels).index(label) for label in names]
    rows = sorted((tuple(texts[index] for index in order), value) for texts, value in samples)
    values = [value for _, value in rows]
    whole = all(isinstance(value, int) for value in values)
    return Family(
        name,
        type,
        help,
        Series(names, [texts for texts, _ in rows]),
        np.array(values, object if whole else np.float64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Families written, in each format. In pieces that are not changed later; both have the same pieces of samples."""

    plain: list[bytes | memoryview]
    openmetrics: list[bytes | memoryview]


def write(families: Iterable[Family]) -> list[Text]:
    """Return the text of each family. One without series has its HELP and TYPE all the same."""
    return [
        Text(
            [_header(f.name, f.type, f.help, openmetrics=False), *lines],
            [_header(f.name, f.type, f.help, openmetrics=True), *lines],
        )
        for f in families
        for lines in [_samples(f)]
    ]


def page(written: Iterable[Text], openmetrics: bool) -> list[bytes | memoryview]:
    """Return the whole page in pieces."""
    pieces: list[bytes | memoryview] = []
    for text in written:
        pieces += text.openmetrics if openmetrics else text.plain
    if openmetrics:
        pieces.append(b"# EOF\n")
    return pieces


def render(families: Iterable[Family], openmetrics: bool) -> bytes:
    """Return the page in one piece."""
    return b"".join(page(write(families), openmetrics))


@lru_cache(maxsize=4096)
def _header(name: str, kind: str, help: str, *, openmetrics: bool) -> bytes:  # noqa: A002 (the format's word)
    text = help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
        if kind == "counter":
            # OpenMetrics names a counter's family without the suffix, and knows no counter that has none.
            name, kind = (name[: -len("_total")], kind) if name.endswith("_total") else (name, "unknown")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n".encode("utf-8", "replace")


def _samples(f: Family) -> list[bytes | memoryview]:
    if not len(f.series.sets):
        return []
    cells = _cells(f) if f.lines is not None else None
    if f.lines is None or cells is None:
        return [_text(f)]
    return [*f.lines.update(f.series, cells, partial(_template, f, cells.kinds))]


def _shows_sum(f: Family) -> bool:
    """Return whether _count and _sum are written. As in prometheus_client, both are left out without a sum (OpenMetrics
    wants both or none), and where a bound is negative, because then the sum can go down."""
    return f.sums is not None and f.bounds[0] >= 0


def _cells(f: Family) -> Cells | None:
    """Return the values in the order of the lines; None for whole numbers beyond 64 bits."""
    values = f.values.reshape(len(f.values), -1)
    kinds = values.dtype.kind * values.shape[1]
    if f.type == "histogram" and _shows_sum(f):
        assert f.sums is not None
        kinds += values.dtype.kind + f.sums.dtype.kind
        if "O" in kinds:
            return None
        parts = [values.view(np.uint64), values[:, -1:].view(np.uint64), f.sums.reshape(-1, 1).view(np.uint64)]
        return Cells(np.concatenate(parts, axis=1), kinds)
    return None if "O" in kinds else Cells(values.view(np.uint64), kinds)


def _template(f: Family, kinds: str, rows: slice) -> bytes:
    conversion = b"%b" if kinds[-1] == "f" else b"%d"
    if f.type == "histogram":
        return histograms(f.series, rows, f.name, f.bounds, conversion if _shows_sum(f) else None)
    return samples(f.series, rows, f.name, conversion)


def _text(f: Family) -> bytes:
    """Return all lines, made anew."""
    if f.type != "histogram":
        conversion, values = _convertible(f.values)
        return samples(f.series, ALL, f.name, conversion) % tuple(values)
    if not _shows_sum(f):
        return histograms(f.series, ALL, f.name, f.bounds, None) % tuple(f.values.ravel().tolist())
    assert f.sums is not None
    conversion, sums = _convertible(f.sums)
    width = f.values.shape[1]
    table = np.empty((len(sums), width + 2), object)
    table[:, :width] = f.values
    table[:, width] = f.values[:, -1]
    table[:, width + 1] = sums
    return histograms(f.series, ALL, f.name, f.bounds, conversion) % tuple(table.ravel().tolist())


def _convertible(column: Column) -> tuple[bytes, list[Any]]:
    """Return how `%` writes the values of a column, and the values."""
    values: list[Any] = column.tolist()
    return (b"%b", list(map(float_text, values))) if column.dtype.kind == "f" else (b"%d", values)
