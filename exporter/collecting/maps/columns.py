"""Raw values of a map -> exact integer columns: numbers at offsets, reduced over CPUs, scaled.

No float64 touches a count: above 2^53 it would no longer be exact.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exporter.binding.buckets import whole_inverse
from exporter.binding.paths import Number
from exporter.collecting.maps.table import Bytes, RowIndex

Column = NDArray[Any]  # of uint64 or int64; of float64 or Python's integers once scaled
Reduce = Literal["sum", "max", "min"]

_FEW_CPUS = 16  # added one after the other, two in a fifteenth of the time: ufunc.reduce begins anew for every row
_UFUNCS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def numbers(records: Bytes, number: Number, count: int = 1) -> Column:
    """Return `count` numbers side by side in each record: (..., size) uint8 -> (..., count) of uint64 or int64."""
    return widened(narrow(records, number, count))


def narrow(records: Bytes, number: Number, count: int = 1) -> Column:
    """Return the numbers in their own width. Offsets need not be aligned (packed structs); a bit-field is always
    one."""
    if number.bits:
        return bit_field(records, number)[..., np.newaxis]
    field = records[..., number.offset : number.offset + number.width * count]
    kind = "i" if number.signed else "u"
    return field.view(np.dtype(f"{number.order}{kind}{number.width}"))


def bit_field(records: Bytes, number: Number, byte_order: str = sys.byteorder) -> Column:
    """Return a bit-field of each record, in the width of its declared type: (..., size) uint8 -> (...). As in BTF, bits
    are counted from the lowest on a little-endian machine, from the highest on a big-endian one."""
    value = np.zeros(records.shape[:-1], np.uint64)
    for index in range((number.shift + number.bits + 7) // 8):
        byte = records[..., number.offset + index].astype(np.uint64)
        # Where the byte's lowest bit is in the value; below 0 it begins in front of the field or ends behind it.
        little = byte_order == "little"
        shift = 8 * index - number.shift if little else number.shift + number.bits - 8 * (index + 1)
        value |= byte << np.uint64(shift) if shift >= 0 else byte >> np.uint64(-shift)
    value &= np.uint64((1 << number.bits) - 1)
    if number.signed:
        sign = np.uint64(1 << (number.bits - 1))
        value = (value ^ sign) - sign  # modulo 2^64, which is what a negative number is
    return value.astype(f"u{number.width}").view(f"{'i' if number.signed else 'u'}{number.width}")


def widened(column: Column) -> Column:
    """Return the column in 64 bits; not a copy where it has them already."""
    return column.astype(np.int64 if column.dtype.kind == "i" else np.uint64, copy=False)


def over_cpus(column: Column, reduce: Reduce) -> Column:
    """Reduce over CPUs: (n, CPUs, ...) -> (n, ...), always a copy."""
    count = column.shape[1]
    if count == 1:
        return column[:, 0].copy()
    ufunc = _UFUNCS[reduce]
    if count > _FEW_CPUS:
        return np.asarray(ufunc.reduce(column, axis=1))
    reduced = ufunc(column[:, 0], column[:, 1])
    for cpu in range(2, count):
        ufunc(reduced, column[:, cpu], out=reduced)
    return np.asarray(reduced)


def grouped(column: Column, order: RowIndex, starts: RowIndex | None, reduce: Reduce) -> Column:
    """Reduce rows of equal label sets to one: `order` brings them side by side, `starts` says where each set begins
    (None if no two are equal)."""
    ordered = column[order]
    if starts is None or not len(ordered):
        return ordered
    return np.asarray(_UFUNCS[reduce].reduceat(ordered, starts, axis=0))


def spread(column: Column, rows: RowIndex | None, count: int) -> Column:
    """Return a column of `count` rows with the values at `rows` and 0 elsewhere; the column itself for None (all)."""
    if rows is None:
        return column
    result = np.zeros((count, *column.shape[1:]), column.dtype)
    result[rows] = column
    return result


def joined(columns: list[Column]) -> Column:
    """Return the columns below each other."""
    return columns[0] if len(columns) == 1 else np.concatenate(alike(columns))


def added(one: Column, other: Column) -> Column:
    """Return the sum of two columns of one shape."""
    left, right = alike([one, other])
    return np.asarray(left + right)


def alike(columns: list[Column]) -> list[Column]:
    """Return the columns in one type: numpy would make float64 of signed and unsigned together."""
    if len({column.dtype for column in columns}) == 1:
        return columns
    if any(column.size and column.max() > np.iinfo(np.int64).max for column in columns):
        return [column.astype(object) for column in columns]
    return [column.astype(np.int64) for column in columns]


def scaled(column: Column, scale: float) -> Column:
    """Return `column * scale`: exact integers for a whole scale, else float64 rounded once (see buckets.scaled)."""
    if scale == 1:
        return column
    if scale == int(scale):
        factor = int(scale)
        largest = max(int(column.max()), -int(column.min())) if column.size else 0
        if largest * factor <= np.iinfo(np.int64).max:
            return np.asarray(column * column.dtype.type(factor))
        return np.asarray(column.astype(object) * factor)  # beyond 64 bits: Python's integers
    inverse = whole_inverse(scale)
    return np.asarray(column / np.float64(inverse) if inverse else column * np.float64(scale), np.float64)
