"""The programs that come with the exporter, running on this kernel, and their samples as a scrape shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from exporter import config
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables
from exporter.collecting.maps.table import Readable
from exporter.collecting.text import exposition
from exporter.decoders.names import Names
from exporter.kernel import cpus
from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import Program, State
from exporter.spec import ProgramSpec
from tests.kernel.programs import compile_all
from tests.waiting import until

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Samples:
    """One scrape: sample name and labels -> value."""

    values: Mapping[tuple[str, Labels], float]

    def since(self, before: Samples) -> Samples:
        """Return the samples that rose between two scrapes, each with its rise."""
        rises = {key: value - before.values.get(key, 0) for key, value in self.values.items()}
        return Samples({key: rise for key, rise in rises.items() if rise})

    def of(self, name: str, **labels: str) -> dict[Labels, float]:
        """Return the samples of this name that have these labels."""
        wanted = frozenset(labels.items())
        return {has: value for (sample, has), value in self.values.items() if sample == name and wanted <= has}

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.of(name, **labels).values())

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Return the observations of each bucket by itself, by upper bound, without empty buckets."""
        cumulative: dict[float, float] = {}
        for has, value in self.of(f"{name}_bucket", **labels).items():
            bound = float(dict(has)["le"])
            cumulative[bound] = cumulative.get(bound, 0) + value
        alone, below = {}, 0.0
        for bound in sorted(cumulative):
            if cumulative[bound] != below:
                alone[bound] = cumulative[bound] - below
            below = cumulative[bound]
        return alone


class Running:
    """A program that counts."""

    def __init__(self, program: Program, collector: ProgramCollector, tables: Mapping[str, Readable]) -> None:
        self.program = program
        self._collector = collector
        self._tables = tables

    def keys(self, map_name: str) -> set[bytes]:
        """Return the raw keys of a map, with or without a metric."""
        return {key.tobytes() for key in self._tables[map_name].read().keys}

    def scrape(self) -> Samples:
        """Collect the metrics. AssertionError if a map could not be read or an update was lost."""
        text = exposition.render(self._collector.collect(), openmetrics=False).decode()
        report = self._collector.report
        assert report.success, report.error
        assert not any(report.insert_failures.values()), report.insert_failures
        return Samples(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    def settled(self, name: str, expected: float, since: Samples, **labels: str) -> Samples:
        """Return what rose since, as soon as `name` rose by what is expected, or after 20 s whatever rose by then."""
        rise = Samples({})

        def has_risen() -> bool:
            nonlocal rise
            rise = self.scrape().since(since)
            return rise.sum(name, **labels) >= expected

        with suppress(AssertionError):
            until(has_risen, seconds=20, every=0.01)
        return rise


def spec(name: str) -> ProgramSpec:
    return config.load_bundled(name, strict=True).config.programs[0]


@contextmanager
def running(program: ProgramSpec, host: Host) -> Iterator[Running]:
    """Attach the first variant that this kernel accepts, and detach it at the end."""

    compile_all(program, host)
    outcome, descriptors = load_program(program, host)
    assert outcome.state is State.RUNNING, outcome.text
    names = Names.open()
    try:
        possible = cpus.possible_numbers()
        tables = open_tables(outcome, descriptors.readonly, len(possible))
        collector = ProgramCollector(outcome, program, tables, names, possible=possible, online=cpus.online)
        yield Running(outcome, collector, tables)
    finally:
        names.close()
        descriptors.close()
