"""Label sets -> the text between the braces: name="value",... escaped as both formats want it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from exporter.collecting.label_sets import LabelSet, LabelSets


def pairs(names: tuple[str, ...], sets: Sequence[LabelSet] | LabelSets) -> bytes:
    """The text of each set, each ended by a newline (one in a label is escaped); of coded ones by whole columns."""
    if not isinstance(sets, LabelSets):
        return b"".join([_pairs(names, texts) + b"\n" for texts in sets])
    if not names or not len(sets):
        return b"\n" * len(sets)
    parts: list[bytes] = []
    varying: list[list[int] | list[bytes]] = []
    for name, codes in zip(names, sets.columns, strict=True):
        if (codes == codes[0]).all():
            parts.append(_pair(name, sets.words.text(int(codes[0]))).replace(b"%", b"%%"))
        elif codes.min() >= 0:
            parts.append(b'%s="%%d"' % name.encode())
            varying.append(codes.tolist())
        else:
            distinct, inverse = np.unique(codes, return_inverse=True)
            made = [_pair(name, sets.words.text(code)) for code in distinct.tolist()]
            parts.append(b"%b")
            varying.append(list(map(made.__getitem__, inverse.tolist())))
    line = b",".join(parts) + b"\n"
    values = tuple(varying[0]) if len(varying) == 1 else tuple(chain.from_iterable(zip(*varying, strict=True)))
    return line * len(sets) % values


def _pairs(names: tuple[str, ...], texts: LabelSet) -> bytes:
    return ",".join([f'{name}="{_escaped(text)}"' for name, text in zip(names, texts, strict=True)]).encode(
        "utf-8", "replace"
    )


def _pair(name: str, text: str) -> bytes:
    return f'{name}="{_escaped(text)}"'.encode("utf-8", "replace")


def _escaped(text: str) -> str:
    if text.isalnum():
        return text
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
