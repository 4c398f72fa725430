"""Columns of numbers -> their text in decimal, as rows of bytes: a whole column at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.table import Bytes

WIDTH = 24  # the longest: -2.2250738585072014e-308, and 20 digits of 64 bits with their sign

_POWERS = 10 ** np.arange(20, dtype=np.uint64)
_FOUR_DIGITS = np.frombuffer(b"".join(b"%04d" % number for number in range(10_000)), np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Texts at the right ends of rows: `rows` (n, WIDTH), `lengths` (n,). The bytes left of a text have no meaning."""

    rows: Bytes
    lengths: NDArray[np.intp]


def texts(bits: NDArray[np.uint64], kind: str) -> Texts:
    """Return the texts of numbers given by their 64 bits; `kind` as in numpy's dtype: u and i are integers, f is
    float64."""
    if kind == "u":
        return _unsigned(bits)
    if kind == "f":
        return _floats(bits.view(np.float64))
    negative = np.flatnonzero(bits.view(np.int64) < 0)
    if not len(negative):
        return _unsigned(bits)
    magnitudes = bits.copy()
    magnitudes[negative] = np.negative(bits[negative])  # modulo 2^64, which is right for -2^63 too
    found = _unsigned(magnitudes)
    found.lengths[negative] += 1
    found.rows[negative, WIDTH - found.lengths[negative]] = ord("-")
    return found


def _unsigned(numbers: NDArray[np.uint64]) -> Texts:
    rows = np.empty((len(numbers), WIDTH), np.uint8)
    if not len(numbers):
        return Texts(rows, np.empty(0, np.intp))
    most = len(str(numbers.max()))
    fours = rows.view(np.uint32)
    rest = numbers
    for column in range(WIDTH // 4 - 1, WIDTH // 4 - 1 - (most + 3) // 4, -1):
        left = rest // np.uint64(10_000)
        fours[:, column] = _FOUR_DIGITS[(rest - left * np.uint64(10_000)).view(np.int64)]
        rest = left
    lengths = np.ones(len(numbers), np.uint8)  # of one byte, as a comparison gives: eight times as many at once
    for power in _POWERS[1:most]:
        lengths += (numbers >= power).view(np.uint8)
    return Texts(rows, lengths.astype(np.intp))


def _floats(numbers: NDArray[np.float64]) -> Texts:
    spellings = list(map(float_text, numbers.tolist()))
    rows = np.frombuffer(bytearray(b"".join([text.rjust(WIDTH) for text in spellings])), np.uint8)
    return Texts(rows.reshape(-1, WIDTH), np.fromiter(map(len, spellings), np.intp, len(spellings)))


def float_text(number: float) -> bytes:
    """Return the shortest text that reads back as the same float; NaN, +Inf and -Inf as Go spells them."""
    return b"%a" % number if math.isfinite(number) else go_text(number)


def go_text(number: float) -> bytes:
    """Return the float as Go and OpenMetrics spell it: 1.0, 1e+06, +Inf, NaN.

    Go writes an exponent from seven digits before the point on, Python from seventeen. Negative numbers and fractions
    are left as Python spells them, as in prometheus_client.
    """
    if math.isnan(number):
        return b"NaN"
    if math.isinf(number):
        return b"+Inf" if number > 0 else b"-Inf"
    text = repr(float(number))
    whole, point, fraction = text.partition(".")
    if point and number > 0 and len(whole) > 6:
        mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.")
        text = f"{mantissa}e+{len(whole) - 1:02d}"
    return text.encode()
