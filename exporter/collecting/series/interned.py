"""Texts of labels as 64-bit codes, so that label sets are columns of numbers: equal texts have equal codes.

A plain decimal number (pids, ports, CPUs: what makes series many) is its own code and takes no memory. Any other text
is kept once, under a negative code.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]

NUMBERS = 10**18  # decimal numbers below are their own codes; so 18 digits at most
NUMBER_LENGTH = 20  # bytes that the longest 64-bit integer takes
NO_TEXT = np.iinfo(np.int64).min  # of a row that a decoder drops
_CROWD = 10_000  # texts; fewer are not searched for dead ones


class StringTable:
    """The texts of one program's labels. A code is never given to another text."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._codes: dict[str, int] = {}
        self._next = count(-1, -1)
        self._alive = 0

    def __len__(self) -> int:
        return len(self._texts)

    def code(self, text: str) -> int:
        if text.isdecimal() and text.isascii() and len(text) <= 18 and (text[0] != "0" or text == "0"):
            return int(text)
        code = self._codes.get(text)
        if code is None:
            code = next(self._next)
            self._codes[text] = code
            self._texts[code] = text
        return code

    def numbers(self, values: NDArray[Any]) -> Codes:
        """Return the codes of integers as they are written in decimal."""
        if values.dtype.kind == "u":
            odd = values >= NUMBERS if values.itemsize == 8 else None
        else:
            odd = (values < 0) | (values >= NUMBERS) if values.itemsize == 8 else values < 0
        codes = values.astype(np.int64)
        if odd is not None and odd.any():
            codes[odd] = [self.code(str(value)) for value in values[odd].tolist()]
        return codes

    def text(self, code: int) -> str:
        """Return the text of a code. KeyError if it was forgotten."""
        return str(code) if code >= 0 else self._texts[code]

    def __contains__(self, code: int) -> bool:
        return code >= 0 or code in self._texts

    def ranks(self, codes: Codes) -> NDArray[np.uint64]:
        """Return numbers that sort as the texts of the codes do (by characters), equal for equal texts."""
        if not len(codes):
            return np.empty(0, np.uint64)
        if codes.min() >= 0:
            return _decimal_ranks(codes)
        distinct, inverse = np.unique(codes, return_inverse=True)
        texts: list[str] = list(map(self.text, distinct.tolist()))
        ranks = np.empty(len(texts), np.uint64)
        ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts), dtype=np.uint64)
        return np.asarray(ranks[inverse])

    @property
    def crowded(self) -> bool:
        """Return True if most texts may be dead, so that `keep` is worth its time."""
        return len(self._texts) > 2 * self._alive + _CROWD

    def keep(self, alive: Iterable[Codes]) -> None:
        """Forget every text whose code is not in one of the columns."""
        used: set[int] = set()
        for codes in alive:
            used.update(codes[codes < 0].tolist())
        self._texts = {code: text for code, text in self._texts.items() if code in used}
        self._codes = {text: code for code, text in self._texts.items()}
        self._alive = len(self._texts)


_POWERS = 10 ** np.arange(1, 19, dtype=np.int64)


def _decimal_ranks(numbers: Codes) -> NDArray[np.uint64]:
    """Return numbers that sort by the digits from the left: 10 before 9, and 1 before 10. They are below 2^64, because
    18 digits times 18 are."""
    length = np.searchsorted(_POWERS, numbers, side="right") + 1
    filled = numbers * np.concatenate([_POWERS[::-1], [1]])[length]  # 18 digits, zeros at the right
    return np.asarray(filled.astype(np.uint64) * np.uint64(18) + (length - 1).astype(np.uint64))
