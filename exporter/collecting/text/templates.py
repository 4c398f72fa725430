"""The series of a family -> the lines of its samples, as a bytes template with a conversion for each value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from exporter.collecting.series.interned import StringTable
from exporter.collecting.series.label_sets import LabelSet, LabelSets, from_texts
from exporter.collecting.series.label_text import pairs
from exporter.collecting.text.decimals import go_text

_HISTOGRAM_LABEL = "le"


class Series:
    """The label names and label sets of a family, all different. The owner of a family keeps this object while the
    sets stay the same, so `is` tells."""

    def __init__(self, names: tuple[str, ...], sets: Sequence[LabelSet] | LabelSets) -> None:
        """`names` are sorted, the values in `sets` in their order."""
        self.names = names
        self.sets = sets if isinstance(sets, LabelSets) else from_texts(StringTable(), sets, len(names))

    def part(self, labels: slice, rows: slice) -> list[bytes]:
        """Return the text of some labels of some sets, with % doubled for a template."""
        return pairs(self.names[labels], self.sets.part(rows, labels)).replace(b"%", b"%%").split(b"\n")[:-1]


ALL = slice(None)


def samples(series: Series, rows: slice, name: str, conversion: bytes) -> bytes:
    """Return a line for each set, with `conversion` (%d, %a or %b) for its value."""
    if not series.names:
        return b"%s %s\n" % (name.encode(), conversion) * len(range(len(series.sets))[rows])
    start, end = name.encode() + b"{", b"} " + conversion + b"\n"
    labels = series.part(ALL, rows)
    return start + (end + start).join(labels) + end if labels else b""


def histograms(
    series: Series, rows: slice, name: str, bounds: tuple[float, ...], sum_conversion: bytes | None
) -> bytes:
    """Return for each set a line for each bucket and, unless `sum_conversion` is None, _count and _sum."""
    return b"".join(_histograms(series, rows, name.encode(), bounds, sum_conversion))


def _histograms(
    series: Series, rows: slice, name: bytes, bounds: tuple[float, ...], sum_conversion: bytes | None
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
