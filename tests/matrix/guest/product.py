"""The exporter's own way from a program of the configuration to lines of text, one variant forced."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from exporter.binding import bind_all
from exporter.collecting import exposition
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.table import open_tables
from exporter.config import model
from exporter.decoders.names import Names
from exporter.kernel import cpus
from exporter.kernel.features import Kernel
from exporter.loading import artifact, child, target
from exporter.program import Descriptors, Map, Program, State
from exporter.supervisor import close

Lines = dict[str, float]  # 'name{label="text"}' -> value


def only(spec: model.Program, variant: str) -> model.Program:
    """The program with this variant and no other."""
    return spec.model_copy(update={"variants": [v for v in spec.variants if v.name == variant]})


def host(cache: Path, header: str) -> child.Host:
    return child.Host(target.this_host(), artifact.Cache(cache), header, Kernel())


@contextmanager
def loaded(spec: model.Program, variant: str, on: child.Host) -> Iterator[tuple[Program, Descriptors]]:
    """The variant running, detached at the end. AssertionError with the loader's own words if it does not run."""
    program, fds = child.load_program(only(spec, variant), on, functools.partial(_check, spec))
    attempts = "; ".join(f"{a.reason}: {a.text}" for a in program.attempts)
    assert program.state is State.RUNNING, f"{spec.name} {variant}: {program.state}: {program.text} ({attempts})"
    try:
        yield program, fds
    finally:
        close(fds)


def _check(spec: model.Program, maps: Sequence[Map]) -> None:
    bind_all(spec.metrics, maps)


def collector(program: Program, spec: model.Program, fds: Descriptors) -> ProgramCollector:
    """As the server has it: read-only maps and nothing else."""
    possible = cpus.possible_numbers()
    tables = open_tables(program, fds.readonly, len(possible))
    return ProgramCollector(program, spec, tables, Names.open(), possible=possible, online=cpus.online)


def collect(from_: ProgramCollector) -> Lines:
    """One scrape. AssertionError if anything of it failed."""
    text = exposition.render(from_.collect(), openmetrics=False).decode()
    assert from_.report.success, from_.report.error
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}
