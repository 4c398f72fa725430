"""One metric of the configuration -> rows of values, collection after collection; entries of one name -> one family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.binding import Binding
from exporter.collecting import columns, histogram
from exporter.collecting.columns import Column, Reduce
from exporter.collecting.exposition import Family
from exporter.collecting.label_sets import LabelSets
from exporter.collecting.labels import LabelTexts, Rows
from exporter.collecting.lines import Lines
from exporter.collecting.series import Arrangement, Limit, arrange, nothing
from exporter.collecting.table import Entries
from exporter.collecting.templates import Series
from exporter.collecting.widening import Widening
from exporter.collecting.words import Codes
from exporter.fields import Number

APPROXIMATE = (
    "approximate: its LRU map forgets entries to make room"  # 240 of 10,000 in one of 10,000, and none counted
)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A metric entry's rows in one collection.

    values  (rows,) of a counter or gauge, or the counts of the rows where the slot is in the key;
            (rows, slots) where the slots are in the value
    sum     (rows,) with slots in the value
    slot    (rows,) with the slot in the key
    """

    rows: Rows
    values: Column
    sum: Column | None = None
    slot: Column | None = None


class Metric:
    """One entry of `metrics:` over its life: label cache and widened counters."""

    def __init__(self, binding: Binding, texts: LabelTexts, keys_stay: bool) -> None:
        self.binding = binding
        self._texts = texts
        self._keys_stay = keys_stay
        self._widening: dict[Number, Widening] = {}

    @property
    def no_labels(self) -> LabelSets:
        """Label sets with these labels, none of them."""
        return self._texts.none

    def measure(self, entries: Entries, online: Callable[[], Sequence[int]], now: float) -> Measured:
        """The rows of `entries`. `online`: indices of the CPUs that are shown even at zero; asked only where
        a label shows CPUs."""
        b = self.binding
        buckets = b.buckets
        slot = None if buckets is None or buckets.slot is None else columns.numbers(entries.keys, buckets.slot)[:, 0]
        if buckets is not None and buckets.slots is not None:
            cells = [self._cells(entries, buckets.slots, buckets.count)]
            if buckets.sum is not None:
                cells.append(self._cells(entries, buckets.sum, 1))
        elif b.value is None:
            cells = [np.ones((len(entries), entries.values.shape[1], 1), np.uint64)]
        else:
            cells = [self._cells(entries, b.value, 1)]
        if b.splits_cpus:
            rows, cpus = _split(cells, online())
            labels = self._texts.resolve(entries, now, rows, cpus)
            flat = [cell[rows, cpus] for cell in cells]
            slot = None if slot is None else slot[rows]
        else:
            labels = self._texts.resolve(entries, now)
            if b.value is None and buckets is None:
                flat = [cells[0][:, 0]]
            else:
                flat = [columns.over_cpus(cell, b.reduce) for cell in cells]
        if buckets is not None and buckets.slots is not None:
            return Measured(labels, flat[0], flat[1][:, 0] if len(flat) > 1 else None)
        return Measured(labels, flat[0][:, 0], slot=slot)

    def _cells(self, entries: Entries, number: Number, count: int) -> Column:
        """The (entries, CPUs, count) numbers, narrow counters widened."""
        cells = columns.narrow(entries.values, number, count)
        if self.binding.type == "gauge" or (number.width == 8 and not number.bits):
            return columns.widened(cells)
        widening = self._widening.setdefault(number, Widening(self._keys_stay, number.bits))
        return widening.totals(entries.keys, cells)


def _split(cells: list[Column], online: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(row, CPU) of each cell that is shown: those of online CPUs and any that is not zero."""
    shown = np.zeros((cells[0].shape[0], cells[0].shape[1]), bool)
    shown[:, [cpu for cpu in online if cpu < shown.shape[1]]] = True
    for cell in cells:
        shown |= (cell != 0).any(axis=2)
    rows, cpus = np.nonzero(shown)
    return rows, cpus


def _by_series(column: Column, how: Arrangement, reduce: Reduce) -> Column:
    """Values of rows -> values of series."""
    return columns.spread(columns.grouped(column, how.order, how.starts, reduce), how.present, len(how.sets))


class FamilyOf:
    """The metric entries of one name, which are one family, and what is kept of it from collection to collection."""

    def __init__(self, metrics: Sequence[Metric], limit: Limit) -> None:
        self.metrics = tuple(metrics)
        self.binding = metrics[0].binding
        self.limit = limit
        self._help = self.binding.help
        if any(metric.binding.approximate for metric in metrics):
            self._help = f"{self._help} ({APPROXIMATE})".lstrip()
        self._stays = [tuple(x.source in ("const", "cpu") for x in metric.binding.labels) for metric in metrics]
        self._rows: list[Rows] | None = None
        self.arrangement = nothing(metrics[0].no_labels)
        self._series = Series(self.binding.label_names, self.arrangement.sets)
        self._lines = Lines()

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Columns of the codes of label texts that are in use here."""
        return self.arrangement.sets.columns + self.limit.codes

    def collect(self, read: Callable[[str], Entries], online: Callable[[], Sequence[int]], now: float) -> Family:
        """The family now. `read` gives the entries of a map by its name."""
        b = self.binding
        measured = [metric.measure(read(metric.binding.map), online, now) for metric in self.metrics]
        how = self._arranged([m.rows for m in measured])
        if b.buckets is None:
            values = _by_series(columns.joined([m.values for m in measured]), how, b.reduce)
            values = columns.scaled(values, b.scale)
            return Family(b.metric, b.type, self._help, self._series, values, lines=self._lines)
        values, sums = self._histogram(measured, how)
        if sums is not None:
            sums = columns.scaled(sums, b.scale)
        return Family(b.metric, b.type, self._help, self._series, values, b.buckets.bounds, sums, self._lines)

    def _arranged(self, rows: list[Rows]) -> Arrangement:
        if self._rows is None or any(a is not b for a, b in zip(rows, self._rows, strict=True)):
            self.arrangement = arrange(rows, self._stays, self.limit)
            self._rows = rows
            if self.arrangement.sets != self._series.sets:
                self._series = Series(
                    self.binding.label_names, self.arrangement.sets, self._series, self.arrangement.kept
                )
        return self.arrangement

    def _histogram(self, measured: list[Measured], how: Arrangement) -> tuple[Column, Column | None]:
        """Cumulative counts and sums of each series. Entries may keep their slots differently: each is made cumulative
        on its own, then they are added."""
        counts: Column | None = None
        sums: Column | None = None
        every_sum = True
        start = 0
        for metric, m in zip(self.metrics, measured, strict=True):
            buckets = metric.binding.buckets
            assert buckets is not None
            group = how.group[start : start + len(m.rows)]
            start += len(m.rows)
            if m.slot is not None:
                mine, total = histogram.from_rows(m.slot, m.values, group, len(how.sets), buckets)
            elif len(measured) == 1:
                mine = _by_series(histogram.cumulative(m.values, buckets), how, "sum")
                total = None if m.sum is None else _by_series(m.sum, how, "sum")
            else:
                mine = histogram.by_group(histogram.cumulative(m.values, buckets), group, len(how.sets))
                total = None if m.sum is None else histogram.by_group(m.sum, group, len(how.sets))
            counts = mine if counts is None else columns.added(counts, mine)
            every_sum = every_sum and total is not None
            if total is not None:
                sums = total if sums is None else columns.added(sums, total)
        assert counts is not None
        return counts, sums if every_sum else None
