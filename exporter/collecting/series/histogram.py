"""Counts by slot -> cumulative counts by bucket, for all label sets at once."""

from __future__ import annotations

import numpy as np

from exporter.binding.buckets import Buckets
from exporter.collecting.maps.columns import Column
from exporter.collecting.series.totals import Counted


def cumulative(slots: Column, buckets: Buckets) -> Column:
    """Return the cumulative counts, +Inf last, of slots in the value: (n, slots) -> (n, bounds + 1). Slots below the
    first bound count in its bucket, those above the last bound (the overflow among them) in +Inf only."""
    total = np.cumsum(slots, axis=1, dtype=slots.dtype)
    last = buckets.first + len(buckets.bounds)
    return np.concatenate([total[:, buckets.first : last], total[:, -1:]], axis=1)


def from_rows(
    slot: Column, count: Column, group: Column, groups: int, buckets: Buckets
) -> tuple[Column, Column | None]:
    """Add up rows with the slot in the key: each has a slot number, a count and its label set (`group`, -1 = none).

    Return ((groups, bounds + 1) cumulative counts, (groups,) sums or None). A slot that is a bound itself (slot_bounds)
    and is none of them counts in the next higher one.
    """
    width = len(buckets.bounds) + 1
    alive = group >= 0
    sums: Column | None = None
    if buckets.sum_slot is not None:
        is_sum = slot == buckets.sum_slot
        sums = np.zeros(groups, count.dtype)
        np.add.at(sums, group[alive & is_sum], count[alive & is_sum])
        alive = alive & ~is_sum
    slot, count, group = slot[alive], count[alive], group[alive]
    if buckets.slot_bounds:
        bounds = np.array(buckets.slot_bounds, np.int64)
        limit = np.iinfo(np.int64).max
        bucket = np.searchsorted(bounds, np.minimum(slot, slot.dtype.type(limit)).astype(np.int64), side="left")
    else:
        last = buckets.first + width - 1
        bucket = np.clip(slot, slot.dtype.type(buckets.first), slot.dtype.type(last)).astype(np.intp) - buckets.first
    cells = np.zeros(groups * width, count.dtype)
    np.add.at(cells, group * width + bucket, count)
    return np.cumsum(cells.reshape(groups, width), axis=1, dtype=count.dtype), sums


def by_group(column: Column, group: Column, groups: int) -> Column:
    """Add up rows of the same label set: (n, ...) -> (groups, ...)."""
    order = np.argsort(group, kind="stable")
    order = order[np.searchsorted(group[order], 0) :]  # -1 comes first
    result = np.zeros((groups, *column.shape[1:]), column.dtype)
    if len(order):
        present, starts = np.unique(group[order], return_index=True)
        result[present] = np.add.reduceat(column[order], starts, axis=0)
    return result


def added(counted: Counted, group: Column, groups: int, buckets: Buckets | None) -> tuple[Column, Column | None]:
    """Add up the rows of a metric entry by label set: counts, cumulative where there are buckets, and sums, if any."""
    if buckets is None:
        return by_group(counted.values, group, groups), None
    if counted.slot is not None:
        return from_rows(counted.slot, counted.values, group, groups, buckets)
    counts = by_group(cumulative(counted.values, buckets), group, groups)
    return counts, None if counted.sum is None else by_group(counted.sum, group, groups)
