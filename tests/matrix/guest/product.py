"""The exporter's own way from a program of the configuration to lines of text, one variant forced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables
from exporter.decoders.names import Names
from exporter.kernel import cpus
from exporter.kernel.features import Kernel
from exporter.loading import artifact, build, load_program, target
from exporter.program import Descriptors, Program, State
from exporter.spec import ProgramSpec
from tests.kernel.bundled import Running


def only(spec: ProgramSpec, variant: str) -> ProgramSpec:
    """The program with this variant and no other."""
    return spec.model_copy(update={"variants": [v for v in spec.variants if v.name == variant]})


def host(cache: Path, header: str) -> build.Host:
    return build.Host(target.this_host(), artifact.Cache(cache), header, Kernel())


def load(spec: ProgramSpec, on: build.Host) -> tuple[Program, Descriptors]:
    """What the exporter's loader makes of the program; the descriptors are the caller's."""

    return load_program.load_program(spec, on)


@contextmanager
def loaded(spec: ProgramSpec, variant: str, on: build.Host) -> Iterator[tuple[Program, Descriptors]]:
    """The variant running, detached at the end. AssertionError with the loader's own words if it does not run."""
    program, fds = load(only(spec, variant), on)
    attempts = "; ".join(f"{a.reason}: {a.text}" for a in program.attempts)
    assert program.state is State.RUNNING, f"{spec.name} {variant}: {program.state}: {program.text} ({attempts})"
    try:
        yield program, fds
    finally:
        fds.close()


def running(program: Program, spec: ProgramSpec, fds: Descriptors) -> Running:
    """Scrapes of it, from read-only maps and nothing else, as the server has them."""
    possible = cpus.possible_numbers()
    tables = open_tables(program, fds.readonly, len(possible))
    collector = ProgramCollector(program, spec, tables, Names.open(), possible=possible, online=cpus.online)
    return Running(program, collector, tables)
