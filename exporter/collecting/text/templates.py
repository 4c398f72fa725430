"""The series of a family -> the lines of its samples, as a bytes template with a place for each value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from exporter.collecting.series.label_sets import LabelSet, LabelSets, RowIndex
from exporter.collecting.series.label_text import pairs
from exporter.collecting.text.decimals import go_text

_HISTOGRAM_LABEL = "le"
_numbers = count()


class SeriesVersion:
    """The label sets of a family, all different, and what became of those before.

    Whoever builds families keeps this object while the sets stay the same. When they change, `follows` is the `number`
    of the series that were last written and `kept` the place that each set had among them, -1 for a new one.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        sets: Sequence[LabelSet] | LabelSets,
        before: SeriesVersion | None = None,
        kept: RowIndex | None = None,
        written: int | None = None,
    ) -> None:
        """`names` are sorted, the values in `sets` in their order. `kept`: places among the sets of `before`;
        `written`: the number of the series that were last written, if it was not these."""
        self.names = names
        self.sets = sets
        self.number = next(_numbers)
        self.follows = None if before is None else before.number
        self.kept = kept
        if before is not None and before.number != written and before.kept is not None and kept is not None:
            there = np.append(before.kept, -1)  # so that -1 is the place of -1
            self.follows, self.kept = before.follows, there[kept]

    def part(self, labels: slice, rows: slice) -> list[bytes]:
        """The text of some labels of some sets, with % doubled for a template."""
        sets = self.sets
        if isinstance(sets, LabelSets):
            columns = [column[rows] for column in sets.columns[labels]]
            chosen: Sequence[LabelSet] | LabelSets = LabelSets(sets.words, columns, len(range(len(sets))[rows]))
        else:
            chosen = [texts[labels] for texts in sets[rows]]
        return pairs(self.names[labels], chosen).replace(b"%", b"%%").split(b"\n")[:-1]


ALL = slice(None)


def samples(series: SeriesVersion, rows: slice, name: str, conversion: bytes) -> bytes:
    """A line for each set: `conversion` (%d, %a or %b) for its value."""
    if not series.names:
        return b"%s %s\n" % (name.encode(), conversion) * len(series.sets[rows])
    start, end = name.encode() + b"{", b"} " + conversion + b"\n"
    labels = series.part(ALL, rows)
    return start + (end + start).join(labels) + end if labels else b""


def histograms(
    series: SeriesVersion, rows: slice, name: str, bounds: tuple[float, ...], sum_conversion: bytes | None
) -> bytes:
    """For each set a line for each bucket, then, unless `sum_conversion` is None, _count and _sum."""
    return b"".join(_histograms(series, rows, name.encode(), bounds, sum_conversion))


def _histograms(
    series: SeriesVersion, rows: slice, name: bytes, bounds: tuple[float, ...], sum_conversion: bytes | None
) -> Iterator[bytes]:
    before = sum(label < _HISTOGRAM_LABEL for label in series.names)
    les = [b'le="' + go_text(bound) + b'"' for bound in (*bounds, math.inf)]
    for left, right in zip(series.part(slice(before), rows), series.part(slice(before, None), rows), strict=True):
        start = name + b"_bucket{" + (left + b"," if left else b"")
        end = (b"," + right if right else b"") + b"} %d\n"
        yield start + (end + start).join(les) + end
        if sum_conversion is not None:
            labels = b",".join(part for part in (left, right) if part)
            labels = b"{" + labels + b"}" if labels else b""
            yield name + b"_count" + labels + b" %d\n" + name + b"_sum" + labels + b" " + sum_conversion + b"\n"
