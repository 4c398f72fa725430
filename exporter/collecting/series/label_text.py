"""Label sets -> their text: name="value",... escaped as both formats want it, or the bare values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from exporter.collecting.series.label_sets import LabelSets, is_constant


def pairs(names: tuple[str, ...], sets: LabelSets) -> bytes:
    """Return what stands between the braces for each set, each ended by a newline (one in a label is escaped)."""
    starts = [b'%s="' % name.encode() for name in names]
    return _text(sets, starts, b'"', b",", b"\n", lambda text: _escaped(text).encode("utf-8", "replace"))


def values(sets: LabelSets, between: bytes, end: bytes) -> bytes:
    """Return the values of each set as UTF-8, not escaped, with `between` between them and `end` behind the last."""
    return _text(sets, [b""] * len(sets.columns), b"", between, end, lambda text: text.encode("utf-8", "replace"))


def _text(
    sets: LabelSets, starts: Sequence[bytes], stop: bytes, between: bytes, end: bytes, encoded: Callable[[str], bytes]
) -> bytes:
    """Return the text of all sets, made by one `%`. `starts`: what each column's values begin with; `stop`: what all of
    them end with."""
    if not starts or not len(sets):
        return end * len(sets)
    parts: list[bytes] = []
    varying: list[list[int] | list[bytes]] = []
    for start, codes in zip(starts, sets.columns, strict=True):
        if is_constant(codes) or (codes == codes[0]).all():
            parts.append((start + encoded(sets.strings.text(int(codes[0]))) + stop).replace(b"%", b"%%"))
        elif codes.min() >= 0:
            parts.append(start + b"%d" + stop)
            varying.append(codes.tolist())
        else:
            distinct, inverse = np.unique(codes, return_inverse=True)
            made = [encoded(sets.strings.text(code)) for code in distinct.tolist()]
            parts.append(start + b"%b" + stop)
            varying.append(list(map(made.__getitem__, inverse.tolist())))
    line = between.join(parts) + end
    numbers = tuple(varying[0]) if len(varying) == 1 else tuple(chain.from_iterable(zip(*varying, strict=True)))
    return line * len(sets) % numbers


def _escaped(text: str) -> str:
    if text.isalnum():
        return text
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
