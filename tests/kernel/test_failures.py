"""What goes wrong in a program, each with the exact state, reason and text that the exporter gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter import config
from exporter.loading import load_program
from exporter.loading.build import Host
from exporter.program import Program
from tests.kernel.failures import cases
from tests.kernel.failures.cases import Case
from tests.kernel.loaded import own_descriptors
from tests.waiting import in_child

CASES = [case for family in cases.families() for case in cases.read(family)]


def says(case: Case, directory: Path, host: Host) -> str:
    """State, reason and text that a case ends with, as `run` would have it: configuration, loader, nothing left."""
    path = case.write(directory)
    try:
        spec = config.load(path, enforce_owner=True).config.programs[0]
    except config.ConfigErrors as errors:
        return f"config\n{cases.normal(str(errors), directory)}\n"

    def load() -> Program:
        before = own_descriptors()
        program, descriptors = load_program.load_program(spec, host)
        descriptors.close()
        assert own_descriptors() == before, "something of a program that failed stayed open"
        return program

    program = in_child(load)
    state = f"{program.state} {program.reason}".strip()
    return f"{state}\n{cases.normal(program.text, directory)}".rstrip() + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}: {case.title}")
def test_failure_is_a_state_with_its_exact_text(
    case: Case, tmp_path: Path, shared_host: Host, update_expected: bool
) -> None:
    found = says(case, tmp_path, shared_host)
    if update_expected:
        same = [replace(c, says=found) if c.title == case.title else c for c in cases.read(case.family)]
        cases.rewrite(case.family, same)
        return
    assert found == case.says
