"""Bundled programs and the peer's examples running here, each against somebody else's count of the same.

tests/matrix runs on other kernels what this one cannot.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import State
from tests.kernel import bundled
from tests.matrix import everything, kernels
from tests.peer.checks import wrong
from tests.peer.counting import CHECKS, NO_COUNT, counted
from tests.peer.specs import of_this_kernel

pytestmark = pytest.mark.alone

PROGRAMS, _ = everything.programs()
HAS_FUNCTIONS = Path("/sys/bus/event_source/devices/kprobe").exists()
HERE = [name for name in CHECKS if HAS_FUNCTIONS or not everything.needs_functions(PROGRAMS[name])]
ELSEWHERE = [name for name in CHECKS if name not in HERE]
# Each variant by itself, in tests/kernel/test_NAME.py and tests/matrix/test_programs.py.
OF_THEIR_OWN = {"programs/tcp_latency", "programs/tcp_rst", "programs/tcp_sendmsg"}


@pytest.mark.parametrize("name", HERE)
def test_program_counts_what_somebody_else_counts(name: str, shared_host: Host) -> None:
    with bundled.running(of_this_kernel(PROGRAMS[name]), shared_host) as running:
        assert not wrong(counted(name, running))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_program_that_needs_functions_of_the_kernel_says_so(name: str, shared_host: Host) -> None:
    program = PROGRAMS[name]
    outcome, descriptors = load_program(program, shared_host)
    descriptors.close()
    assert outcome.state is (State.SKIPPED if program.optional else State.FAILED), outcome.text
    assert any(kind in outcome.text for kind in everything.FUNCTIONS), outcome.text


@pytest.mark.parametrize("name", NO_COUNT)
def test_optional_program_with_nothing_to_attach_to_is_skipped(name: str, shared_host: Host) -> None:
    outcome, descriptors = load_program(PROGRAMS[name], shared_host)
    descriptors.close()
    assert outcome.state in (State.SKIPPED, State.RUNNING), outcome.text


def test_every_program_is_counted_by_somebody_else() -> None:
    assert set(PROGRAMS) == CHECKS.keys() | NO_COUNT.keys() | OF_THEIR_OWN
    assert sum(name.startswith("peer/") for name in CHECKS) >= 20


def test_every_count_is_compared_here_or_on_a_kernel_of_the_matrix() -> None:
    assert set(CHECKS) == {*HERE, *(name for series in kernels.SERIES for name in everything.loaded_on(series))}
