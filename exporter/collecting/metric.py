"""Metric entries of the configuration -> rows of values in each collection; entries of one name -> one family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.binding.bind import Binding
from exporter.binding.paths import Number
from exporter.collecting.maps import columns
from exporter.collecting.maps.columns import Column, Reduce
from exporter.collecting.maps.key_matcher import KeyMatcher
from exporter.collecting.maps.table import Bytes, Entries, RowIndex
from exporter.collecting.maps.widening import Widening
from exporter.collecting.series import histogram
from exporter.collecting.series.interned import Codes
from exporter.collecting.series.label_sets import LabelSet, LabelSets, from_texts
from exporter.collecting.series.labels import LabelTexts, Rows
from exporter.collecting.series.limit import Arrangement, Limit, arrange, nothing
from exporter.collecting.series.totals import Add, Counted, Numbers, Totals, unsigned
from exporter.collecting.series.totals_store import Committed, FamilyStore
from exporter.collecting.text.exposition import Family
from exporter.collecting.text.line_cache import LineCache
from exporter.collecting.text.templates import Series

APPROXIMATE = (
    "approximate: its LRU map forgets entries to make room"  # 240 of 10,000 in one of 10,000, and none counted
)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The rows of a metric entry in one collection, and what they have counted."""

    rows: Rows
    counted: Counted


class MetricCollector:
    """One entry of `metrics:` over its life: label cache and widened counters."""

    def __init__(self, binding: Binding, texts: LabelTexts, matcher: KeyMatcher, keys_stay: bool) -> None:
        self.binding = binding
        self.matcher = matcher
        self._texts = texts
        self._keys_stay = keys_stay
        self._widening: dict[Number, Widening] = {}

    @property
    def no_labels(self) -> LabelSets:
        """No label sets, of these labels."""
        return self._texts.none

    def measure(self, entries: Entries, online: Callable[[], Sequence[int]], now: float) -> Measured:
        """Return the rows of `entries`. `online`: indices of the CPUs that are shown even at zero; called only where a
        label shows CPUs."""
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
        keys = entries.keys
        if b.splits_cpus:
            rows, cpus = _split(cells, online())
            keys = _split_keys(keys, rows, cpus)
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
            return Measured(labels, Counted(keys, flat[0], flat[1][:, 0] if len(flat) > 1 else None))
        return Measured(labels, Counted(keys, flat[0][:, 0], slot=slot))

    def _cells(self, entries: Entries, number: Number, count: int) -> Column:
        """Return the (entries, CPUs, count) numbers, narrow counters widened."""
        cells = columns.narrow(entries.values, number, count)
        if self.binding.type == "gauge" or self.binding.drained or (number.width == 8 and not number.bits):
            return columns.widened(cells)
        widening = self._widening.setdefault(number, Widening(self._keys_stay, number.bits, self.matcher))
        return widening.totals(entries.keys, cells)


def _split_keys(keys: Bytes, rows: RowIndex, cpus: RowIndex) -> Bytes:
    """Return the keys of rows that are split by CPU: the map's key and the CPU's index."""
    return np.concatenate([keys[rows], cpus.astype(np.uint32)[:, np.newaxis].view(np.uint8)], axis=1)


def _split(cells: list[Column], online: Sequence[int]) -> tuple[RowIndex, RowIndex]:
    """Return (row, CPU) of each cell that is shown: those of online CPUs and any that is not zero."""
    shown = np.zeros((cells[0].shape[0], cells[0].shape[1]), bool)
    shown[:, [cpu for cpu in online if cpu < shown.shape[1]]] = True
    for cell in cells:
        shown |= (cell != 0).any(axis=2)
    rows, cpus = np.nonzero(shown)
    return rows, cpus


def _by_series(column: Column, how: Arrangement, reduce: Reduce) -> Column:
    """Return the values of series, from those of rows."""
    return columns.spread(columns.grouped(column, how.order, how.starts, reduce), how.present, len(how.sets))


class FamilyCollector:
    """The metric entries of one name, which are one family: its series, totals and lines from collection to
    collection."""

    def __init__(
        self,
        metrics: Sequence[MetricCollector],
        limit: Limit,
        ttl: float = 0.0,
        store: FamilyStore | None = None,
        committed: Committed | None = None,
        now: float = 0.0,
    ) -> None:
        """Begin with no series, or with those that a previous process committed.

        ttl        of the entries of its maps
        store      where its totals outlive this process
        committed  what the store held at the time `now`
        """
        self.metrics = tuple(metrics)
        self.binding = metrics[0].binding
        self.limit = limit
        self._help = self.binding.help
        if any(metric.binding.approximate for metric in metrics):
            self._help = f"{self._help} ({APPROXIMATE})".lstrip()
        self._unfolded = [tuple(x.source in ("const", "cpu") for x in metric.binding.labels) for metric in metrics]
        self._rows: list[Rows] | None = None
        self.arrangement = nothing(metrics[0].no_labels)
        self._totals = None if self.binding.type == "gauge" else self._new_totals(ttl, store)
        if self._totals is not None and committed is not None:
            self.arrangement = limit.restore(self._from_texts(committed.sets), committed.folded)
            self._totals.restore(committed, now)
        self._series = Series(self.binding.label_names, self.arrangement.sets)
        self._lines = LineCache()

    def _from_texts(self, sets: Sequence[LabelSet]) -> LabelSets:
        none = self.metrics[0].no_labels
        return from_texts(none.strings, sets, len(none.columns))

    def _new_totals(self, ttl: float, store: FamilyStore | None) -> Totals:
        bounds = () if self.binding.buckets is None else self.binding.buckets.bounds
        with_sum = all(m.binding.buckets is not None and m.binding.buckets.has_sum for m in self.metrics)
        widths = [len(bounds) + 1, 1] if with_sum else [len(bounds) + 1]

        def adding(metric: MetricCollector) -> Add:
            def add(counted: Counted, group: RowIndex, series: int) -> Numbers:
                counts, sums = histogram.added(counted, group, series, metric.binding.buckets)
                columns_ = [counts] if sums is None or not with_sum else [counts, sums]
                return np.concatenate([unsigned(column) for column in columns_], axis=1)

            return add

        rows = [(metric.matcher, adding(metric), metric.binding.drained) for metric in self.metrics]
        return Totals(widths, rows, ttl, store)

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Columns of the codes of label texts that are in use here."""
        return self.arrangement.sets.columns + self.limit.codes

    def collect(self, read: Callable[[str], Entries], online: Callable[[], Sequence[int]], now: float) -> Family:
        """Return the family now. `read` gives the entries of a map by its name."""
        b = self.binding
        measured = [metric.measure(read(metric.binding.map), online, now) for metric in self.metrics]
        how = self._arranged([m.rows for m in measured], now)
        counted = [m.counted for m in measured]
        if self._totals is not None:
            counted = self._totals.take(counted, how)
        values, sums = self._by_series(counted, how)
        if self._totals is not None:
            values, *rest = self._totals.total([values, sums], now)
            sums = rest[0] if rest else None
        if b.buckets is None:
            values = columns.scaled(values, b.scale)
            return Family(b.metric, b.type, self._help, self._series, values, lines=self._lines)
        if sums is not None:
            sums = columns.scaled(sums, b.scale)
        return Family(b.metric, b.type, self._help, self._series, values, b.buckets.bounds, sums, self._lines)

    @property
    def ended(self) -> int:
        """Series without keys that ttl has ended so far."""
        return 0 if self._totals is None else self._totals.ended

    def write_totals(self, bank: int) -> None:
        """Write the totals into a bank of the store, which the next commit makes valid."""
        if self._totals is not None:
            self._totals.write(bank)

    def _arranged(self, rows: list[Rows], now: float) -> Arrangement:
        stays = None if self._totals is None else self._totals.stays(now)
        if (
            self._rows is None
            or any(a is not b for a, b in zip(rows, self._rows, strict=True))
            or _ends(stays, self.arrangement)
        ):
            how = self.arrangement = arrange(rows, self._unfolded, self.limit, stays)
            if self._totals is not None:
                self._totals.arrange(how, now)
            self._rows = rows
            if how.sets != self._series.sets:
                self._series = Series(self.binding.label_names, how.sets)
                self._lines.arrange(self._series, how.previous)
        return self.arrangement

    def _by_series(self, counted: list[Counted], how: Arrangement) -> tuple[Column, Column | None]:
        """Return the values, or cumulative counts and sums, of each series. Entries may keep their slots differently:
        each is made cumulative on its own, then they are added."""
        if self.binding.buckets is None:
            return _by_series(columns.joined([m.values for m in counted]), how, self.binding.reduce), None
        counts: Column | None = None
        sums: Column | None = None
        every_sum = True
        start = 0
        for metric, m in zip(self.metrics, counted, strict=True):
            buckets = metric.binding.buckets
            group = how.group[start : start + len(m.keys)]
            start += len(m.keys)
            if buckets is not None and m.slot is None and len(counted) == 1:
                mine = _by_series(histogram.cumulative(m.values, buckets), how, "sum")
                total = None if m.sum is None else _by_series(m.sum, how, "sum")
            else:
                mine, total = histogram.added(m, group, len(how.sets), buckets)
            counts = mine if counts is None else columns.added(counts, mine)
            every_sum = every_sum and total is not None
            if total is not None:
                sums = total if sums is None else columns.added(sums, total)
        assert counts is not None
        return counts, sums if every_sum else None


def _ends(stays: NDArray[np.bool_] | None, how: Arrangement) -> bool:
    """Return whether a series without rows has to go."""
    if stays is None or how.present is None or stays.all():
        return False
    ends = ~stays
    ends[how.present] = False
    return bool(ends.any())
