"""A host to compile for and load on, and programs that go after the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import Descriptors, Program
from exporter.spec import ProgramSpec
from tests.kernel.loaded import Load
from tests.kernel.programs import compile_all, host


@pytest.fixture(scope="session")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def load(shared_host: Host) -> Iterator[Load]:
    """Compile and load a program; what it opened is closed after the test."""
    opened: list[Descriptors] = []

    def compile_and_load(program: ProgramSpec) -> tuple[Program, Descriptors]:
        compile_all(program, shared_host)
        outcome, descriptors = load_program(program, shared_host)
        opened.append(descriptors)
        return outcome, descriptors

    yield compile_and_load
    for descriptors in opened:
        descriptors.close()
