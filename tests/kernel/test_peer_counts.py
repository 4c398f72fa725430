"""The peer's examples running here, each against somebody else's count; tests/matrix runs those this kernel cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.loading.child import Host, close, load_program
from exporter.program import State
from tests.kernel import bundled
from tests.kernel.loaded import accept
from tests.peer.checks import CHECKS, Found, wrong
from tests.peer.specs import READY, of_this_kernel, spec

TRIES = 5  # others on this host work too; a count that they disturbed is repeated
HAS_FUNCTIONS = Path("/sys/bus/event_source/devices/kprobe").exists()
NEEDS_FUNCTIONS = {"kprobe", "kretprobe", "fentry", "fexit"}
NO_COUNT = {
    "cephfs_dist": "needs a Ceph cluster",
    "llcstat": "needs the counters of a real CPU",
}


def needs_functions(name: str) -> bool:
    """Whether every variant attaches to functions of the kernel."""
    return all(
        any(point.kind in NEEDS_FUNCTIONS and not point.optional for point in variant.attach)
        for variant in spec(name).variants
    )


HERE = [name for name in READY if name in CHECKS and (HAS_FUNCTIONS or not needs_functions(name))]
ELSEWHERE = [name for name in READY if name not in HERE and name not in NO_COUNT]


@pytest.mark.parametrize("name", HERE)
def test_program_counts_what_somebody_else_counts(name: str, shared_host: Host) -> None:
    with bundled.running(of_this_kernel(name), shared_host) as running:
        found: Found = {}
        for _ in range(TRIES):
            found = CHECKS[name](running)
            if not wrong(found):
                break
        assert not wrong(found)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_program_that_needs_functions_of_the_kernel_says_so(name: str, shared_host: Host) -> None:
    program = spec(name)
    outcome, descriptors = load_program(program, shared_host, accept)
    close(descriptors)
    assert outcome.state is (State.SKIPPED if program.optional else State.FAILED)
    assert "kprobe" in outcome.text or "fentry" in outcome.text or "fexit" in outcome.text, outcome.text


@pytest.mark.parametrize("name", NO_COUNT)
def test_optional_program_with_nothing_to_attach_to_is_skipped(name: str, shared_host: Host) -> None:
    outcome, descriptors = load_program(spec(name), shared_host, accept)
    close(descriptors)
    assert outcome.state in (State.SKIPPED, State.RUNNING), outcome.text


def test_every_program_is_counted_somewhere() -> None:
    assert set(READY) == set(HERE) | set(ELSEWHERE) | (set(NO_COUNT) & set(READY))
    assert set(CHECKS) >= set(ELSEWHERE)
    assert len(CHECKS) >= 20
    assert set(READY) >= set(CHECKS)
