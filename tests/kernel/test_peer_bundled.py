"""The bundled programs that the peer's users know, running here, each against somebody else's count."""

from __future__ import annotations

import pytest

from exporter.config import model
from exporter.kernel.features import Kernel
from exporter.loading import requires
from exporter.loading.child import Host, close, load_program
from exporter.program import State
from tests.kernel import bundled
from tests.kernel.loaded import accept
from tests.kernel.test_peer_counts import HAS_FUNCTIONS, TRIES
from tests.peer.bundled_checks import CHECKS
from tests.peer.checks import Found, wrong

NEEDS_FUNCTIONS = {"accept_latency", "cachestat"}
HERE = sorted(CHECKS) if HAS_FUNCTIONS else sorted(CHECKS.keys() - NEEDS_FUNCTIONS)


def of_this_kernel(name: str) -> model.Program:
    program = bundled.spec(name)
    variants = [v for v in program.variants if not requires.unmet(v.requires, Kernel())]
    return program.model_copy(update={"variants": variants})


@pytest.mark.parametrize("name", HERE)
def test_program_counts_what_somebody_else_counts(name: str, shared_host: Host) -> None:
    with bundled.running(of_this_kernel(name), shared_host) as running:
        found: Found = {}
        for _ in range(TRIES):
            found = CHECKS[name](running)
            if not wrong(found):
                break
        assert not wrong(found)


@pytest.mark.parametrize("name", sorted(CHECKS.keys() - set(HERE)))
def test_program_that_cannot_see_its_events_here_is_skipped(name: str, shared_host: Host) -> None:
    outcome, descriptors = load_program(bundled.spec(name), shared_host, accept)
    close(descriptors)
    assert outcome.state is State.SKIPPED, outcome.text
