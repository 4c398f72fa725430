"""Buckets of the configuration -> upper bounds, and the slot of the map's array or key of each bound.

Bounds as Prometheus has them: https://prometheus.io/docs/concepts/metric_types/#histogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from exporter.binding.paths import LayoutError, Number
from exporter.spec import BucketSpec

MOST_BUCKETS = 4096


@dataclass(frozen=True, slots=True)
class Buckets:
    """The relation of slots to buckets.

    bounds  the finite upper bounds, scaled and rising; lower slots count in the first bucket, higher ones in +Inf
    first   the slot of bounds[0]

    Slots in the value: `slots` is the first of `count` adjacent numbers, of which the last counts values above all
    bounds; `sum` is their exact sum. Slot in the key: `slot` is its number; `slot_bounds` (slot_is_bound) are the
    unscaled bounds that the key has instead, `sum_slot` is the slot whose count is the sum of all values.
    """

    bounds: tuple[float, ...]
    first: int
    slots: Number | None = None
    count: int = 0
    sum: Number | None = None
    slot: Number | None = None
    slot_bounds: tuple[int, ...] = ()
    sum_slot: int | None = None

    @property
    def has_sum(self) -> bool:
        return self.sum is not None or self.sum_slot is not None


def slot_range(given: BucketSpec, last: int | None) -> tuple[int, int]:
    """Return the first and last slot that has a bound. `last`: of the array, None for a slot in the key."""
    if given.type == "fixed":
        if not given.bounds:
            raise LayoutError("buckets: type fixed needs bounds")
        if last is not None and given.max is None and last != len(given.bounds) - 1:
            raise LayoutError(
                f"buckets: {len(given.bounds)} bounds do not fit an array of {last + 2} (it has a slot for each of "
                f"{last + 1} bounds and one for what is above all; if they are to be less, say max)"
            )
        last = len(given.bounds) - 1
    low = given.min if given.min is not None else 0
    high = given.max if given.max is not None else last
    if high is None:
        raise LayoutError("buckets: max is missing (the slot is in the key, so nothing says how many there are)")
    if low < 0 or high < low:
        raise LayoutError(f"buckets: min {low}, max {high}: slots are numbered from 0 and max is not below min")
    if given.type == "fixed" and high >= len(given.bounds or []):
        raise LayoutError(f"buckets: max {high} has no bound ({len(given.bounds or [])} bounds, numbered from 0)")
    return low, high


def upper_bounds(given: BucketSpec, low: int, high: int, scale: float) -> tuple[float, ...]:
    """Return the scaled upper bounds of slots `low` to `high`."""
    most = {"exp2": 63, "exp2zero": 64}.get(given.type, high)
    if high - low >= MOST_BUCKETS:
        raise LayoutError(
            f"buckets: {high - low + 1} of them, each a series for every label set (at most {MOST_BUCKETS}: take a "
            "larger width, or min and max)"
        )
    if high > most:
        raise LayoutError(f"buckets: max {high}: the bound of slot {most} is 2^63, the last one below 64 bits")
    if given.type == "linear" and (given.width is None or given.width <= 0):
        raise LayoutError("buckets: type linear needs a width above 0")
    slots = range(low, high + 1)
    raw: list[float]
    if given.type == "exp2":
        raw = [float(2**i) for i in slots]
    elif given.type == "exp2zero":
        raw = [0.0 if i == 0 else float(2 ** (i - 1)) for i in slots]
    elif given.type == "linear":
        raw = [i * (given.width or 0.0) for i in slots]
    else:
        raw = [float((given.bounds or [])[i]) for i in slots]
    bounds = tuple(scaled(bound, scale) for bound in raw)
    if not all(map(math.isfinite, bounds)):
        raise LayoutError("buckets: a bound is not a finite number (+Inf is always there)")
    if any(a >= b for a, b in pairwise(bounds)):
        raise LayoutError("buckets: the bounds do not rise")
    return bounds


def scaled(value: float, scale: float) -> float:
    """Return `value * scale`, rounded once: 3 ns are 3e-09 s and not 3.0000000000000004e-09. 1e-9 has no exact binary
    form, but its inverse has."""
    inverse = whole_inverse(scale)
    return value / inverse if inverse else value * scale


def whole_inverse(scale: float) -> int:
    """Return n if `scale` is 1/n with a whole n, else 0."""
    inverse = round(1 / scale)
    return inverse if inverse > 1 and 1 / inverse == scale else 0
