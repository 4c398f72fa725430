"""The maps of one loaded program -> its families, and a report of the collection."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from exporter.binding.bind import Binding, bind_all
from exporter.collecting.maps import columns
from exporter.collecting.maps.draining import Drained
from exporter.collecting.maps.key_matcher import KeyMatcher
from exporter.collecting.maps.options import Expiring, with_options
from exporter.collecting.maps.stacks import Stacks
from exporter.collecting.maps.table import Bytes, Entries, Readable, ReadError, same_keys
from exporter.collecting.metric import FamilyCollector, MetricCollector
from exporter.collecting.series.interned import StringTable
from exporter.collecting.series.labels import DEFAULT_LENGTH, LabelTexts
from exporter.collecting.series.limit import Budget, Limit
from exporter.collecting.series.totals_store import Store
from exporter.collecting.text.exposition import Family
from exporter.decoders import Names
from exporter.kernel import malloc, map_types
from exporter.program import LOST_UPDATES, Program, hidden
from exporter.spec import MapOptions, ProgramSpec

MANY = 20_000  # entries whose arrays are so large that malloc takes each from the kernel anew
HELPER_MAPS_SECONDS = 30.0  # maps without a metric are read only for their number of entries: not every time


_NO_KEYS = np.empty((0, 0), np.uint8)


@dataclass(slots=True)
class MetricReport:
    series: int = 0
    folded: int = 0  # label sets shown as "other"
    dropped: int = 0  # rows without a label set, because a decoder drops them
    expired: int | None = None  # label sets that ttl ended so far; None where no map has a ttl


@dataclass(slots=True)
class CollectReport:
    """One collection of a program; not changed after it. Maps, metrics and decoders by name; `error` is "" if all of it
    succeeded."""

    seconds: float = 0.0
    success: bool = True
    error: str = ""
    entries: dict[str, int] = field(default_factory=dict)
    insert_failures: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, MetricReport] = field(default_factory=dict)
    decoder_errors: dict[str, int] = field(default_factory=dict)


class ProgramCollector:
    """Reads the maps of one program, each once a collection however many metrics share it. Not thread-safe."""

    def __init__(
        self,
        program: Program,
        spec: ProgramSpec,
        tables: Mapping[str, Readable],
        names: Names,
        *,
        possible: Sequence[int],
        online: Callable[[], Sequence[int]],
        label_length: int = DEFAULT_LENGTH,
        budget: Budget | None = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind the metrics to their maps. BindingError if one does not fit.

        tables            by map name
        possible, online  numbers of CPUs (kernel.cpus)
        budget            of series, for all programs together
        store             where totals outlive this process
        """
        self.program = program
        self.names = replace(names, stacks={n: t.frames for n, t in tables.items() if isinstance(t, Stacks)})
        self._tables = with_options(tables, spec.maps, clock)
        self._possible = list(possible)
        self._online = online
        self._clock = clock
        self._maps = {m.name: m for m in program.maps}
        self._strings = StringTable()
        self._keys: dict[str, Bytes] = {}  # of each map at the last read
        self._texts: list[tuple[str, LabelTexts]] = []  # with the map whose labels they are
        self._store = store
        bindings = [self._as_read(binding) for binding in bind_all(spec.metrics, program.maps, spec.maps)]
        self._families = self._bound(bindings, spec.maps, label_length, budget)
        measured = {metric.binding.map for one in self._families for metric in one.metrics}
        self._helpers = [
            name
            for name in tables
            if name not in measured and not hidden(name, program.maps) and self._maps[name].type not in map_types.ARRAYS
        ]
        self._helpers_read = -float("inf")
        self._expired_series: Counter[str] = Counter()
        self._drained = {name: table for name, table in self._tables.items() if isinstance(table, Drained)}
        self.report = CollectReport()
        if any(table.behind for table in self._drained.values()):
            self.drain(0.0)  # what a previous server left

    def _as_read(self, binding: Binding) -> Binding:
        """Return the binding with `drained` as the table is: a recorded map keeps its entries."""
        return replace(binding, drained=isinstance(self._tables.get(binding.map), Drained))

    def _bound(
        self,
        bindings: Sequence[Binding],
        options: Mapping[str, MapOptions],
        label_length: int,
        budget: Budget | None,
    ) -> list[FamilyCollector]:
        families: dict[str, list[MetricCollector]] = {}
        matchers = {name: KeyMatcher() for name in self._maps}
        for binding in bindings:
            # Metrics with the same labels of the same map share their text.
            shared = next((t for m, t in self._texts if m == binding.map and t.labels == binding.labels), None)
            if shared is None:
                shared = LabelTexts(binding.labels, self.names, self._possible, label_length, self._strings)
                self._texts.append((binding.map, shared))
            metric = MetricCollector(
                binding, shared, matchers[binding.map], self._maps[binding.map].type in map_types.ARRAYS
            )
            families.setdefault(binding.metric, []).append(metric)
        return [self._family(metrics, options, budget) for metrics in families.values()]

    def _family(
        self, metrics: Sequence[MetricCollector], options: Mapping[str, MapOptions], budget: Budget | None
    ) -> FamilyCollector:
        name = metrics[0].binding.metric
        return FamilyCollector(
            metrics,
            Limit(max(metric.binding.max_series for metric in metrics), budget),
            max(options[m.binding.map].ttl if m.binding.map in options else 0.0 for m in metrics),
            None if self._store is None else self._store.families.get(name),
            None if self._store is None else self._store.committed.get(name),
            self._clock(),
        )

    def collect(self) -> list[Family]:
        """Return the program's families now. Never raises for a map or metric: what could not be read is left out, and
        the report says so."""
        start = time.perf_counter()
        now = self._clock()
        report = CollectReport(entries=dict(self.report.entries), insert_failures=dict(self.report.insert_failures))
        families = self._collected(self._families, report, now)
        with self._reported(report, "entries"):
            self._count_entries(report, now)
        with self._reported(report, f"map {LOST_UPDATES}"):
            self._read_lost(report)
        report.decoder_errors = dict(self.names.errors)
        report.seconds = time.perf_counter() - start
        self.report = report
        return families

    @property
    def drains(self) -> bool:
        """Return True if the program has maps to drain between collections."""
        return bool(self._drained)

    def drain(self, least: float) -> tuple[bool, str]:
        """Empty the drained maps between collections if one of them is at least so full (0 to 1), so that there is room
        for new keys. Return whether one was, and the error, "" for none."""
        report = CollectReport()
        full = False
        with self._reported(report, "drained maps"):
            full = any(table.fill() >= least for table in self._drained.values())
            if full:
                families = [f for f in self._families if any(m.binding.map in self._drained for m in f.metrics)]
                self._collected(families, report, self._clock())
        return full, report.error

    def _collected(self, chosen: Sequence[FamilyCollector], report: CollectReport, now: float) -> list[Family]:
        with ExitStack() as stack:
            return self._collected_in(stack, chosen, report, now)

    def _collected_in(
        self, stack: ExitStack, chosen: Sequence[FamilyCollector], report: CollectReport, now: float
    ) -> list[Family]:
        entries: dict[str, Entries] = {}
        changed = False

        def read(name: str) -> Entries:
            nonlocal changed
            if name not in entries:
                if name not in self._tables:
                    raise ReadError(f"read map {name}: it was not handed over")
                try:
                    entries[name] = self._tables[name].read()
                except OSError as error:
                    raise ReadError(f"read map {name}: {_cause(error)}") from error
                report.entries[name] = len(entries[name])
                if not changed and len(entries[name]) >= MANY:
                    changed = not same_keys(entries[name].keys, self._keys.get(name, _NO_KEYS))
                    if changed:  # that takes many large arrays
                        stack.enter_context(malloc.reuse_freed_memory())
                self._keys[name] = entries[name].keys
            return entries[name]

        with self._reported(report, "drained maps"):
            Drained.rest(list(self._drained.values()))
        families = []
        counted: set[str] = set()  # maps; what could not be counted is there next time
        for one in chosen:
            with self._reported(report, f"metric {one.binding.metric}"):
                ended = one.limit.ended, one.ended
                families.append(one.collect(read, self._online_indices, now))
                counted.update(metric.binding.map for metric in one.metrics)
                how = one.arrangement
                expired = self._expired(one, ended)
                report.metrics[one.binding.metric] = MetricReport(len(how.sets), how.folded, how.dropped, expired)
        with self._reported(report, "totals"):
            self._commit({name: table for name, table in self._drained.items() if name in counted})
        if self._strings.crowded:
            self._strings.keep(chain(*(t.codes for _, t in self._texts), *(one.codes for one in self._families)))
            for _, texts in self._texts:
                texts.forget_dead()
        return families

    def _commit(self, drained: Mapping[str, Drained]) -> None:
        """Make what was collected outlive this process, before a scraper sees it and before it is deleted from its
        map."""
        try:
            if self._store is not None:
                for one in self._families:
                    one.write_totals(self._store.next_bank)
                self._store.commit({name: table.half for name, table in drained.items()})
        finally:  # it is counted, committed or not: read once more it would be counted twice
            for table in drained.values():
                table.clear()
        if self._store is not None:
            self._store.cleared()

    def _expired(self, family: FamilyCollector, before: tuple[int, int]) -> int | None:
        """Return how many label sets of the family ttl has ended so far: those that went in a collection in which it
        deleted entries, and series that had lost their keys before. `before`: what had ended before this collection."""
        tables = [self._tables[metric.binding.map] for metric in family.metrics]
        expiring = [table for table in tables if isinstance(table, Expiring)]
        if not expiring:
            return None
        name = family.binding.metric
        if any(table.expired for table in expiring):
            self._expired_series[name] += family.limit.ended - before[0]
        else:
            self._expired_series[name] += family.ended - before[1]
        return self._expired_series[name]

    @contextmanager
    def _reported(self, report: CollectReport, what: str) -> Iterator[None]:
        """Report an error of one part of a collection, which must not end the other parts, nor other programs."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            report.success = False
            report.error = report.error or f"{self.program.name}: collect {what}: {_cause(error)}"

    def _online_indices(self) -> list[int]:
        """Return the slots of per-CPU values that belong to online CPUs."""
        online = set(self._online())
        return [index for index, cpu in enumerate(self._possible) if cpu in online]

    def _count_entries(self, report: CollectReport, now: float) -> None:
        """Count the entries of maps that no metric reads; an array always has all of its entries."""
        for map_ in self.program.maps:
            if map_.type in map_types.ARRAYS and not hidden(map_.name, self.program.maps):
                report.entries[map_.name] = map_.max_entries
        if now - self._helpers_read < HELPER_MAPS_SECONDS:
            return
        self._helpers_read = now
        for name in self._helpers:
            report.entries[name] = len(self._tables[name].read())

    def _read_lost(self, report: CollectReport) -> None:
        counted = [m for m in self.program.maps if m.lost_index is not None]
        if not counted or LOST_UPDATES not in self._tables:
            return
        values = self._tables[LOST_UPDATES].read().values
        lost = columns.over_cpus(values.view(np.uint64), "sum")[:, 0]
        for map_ in counted:
            assert map_.lost_index is not None
            report.insert_failures[map_.name] = int(lost[map_.lost_index])


def _cause(error: Exception) -> str:
    """Return the kernel's message, without the number that Python puts in front."""
    if isinstance(error, ReadError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
