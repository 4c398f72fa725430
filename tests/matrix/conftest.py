"""One boot a kernel for all tests of a run.

The first test that asks starts every kernel that the run needs; in lanes (tests/lanes.py) they start before any test.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import lanes
from tests.matrix import examine, kernels


@dataclass
class Machines:
    """The kernels that are examined in the background, and the directory of their results."""

    series: list[str]
    work: Path
    pool: ThreadPoolExecutor
    running: dict[str, Future[examine.Examined]]


MACHINES = pytest.StashKey[Machines]()


def started(session: pytest.Session) -> Machines:
    """Start the kernels whose series the tests of this run ask for, if that has not been done."""
    if MACHINES not in session.stash:
        wanted = {
            item.callspec.params["series"]
            for item in session.items
            if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "series" in item.callspec.params
        }
        series = [each for each in (*kernels.TESTED, examine.HERE) if each in wanted]
        # Not below the directory of another user, whatever umask says: artifacts are kernel code.
        work = Path(tempfile.mkdtemp(prefix="bpf-exporter-matrix-"))
        session.stash[MACHINES] = Machines(series, work, *examine.start(series, work))
    return session.stash[MACHINES]


def pytest_collection_finish(session: pytest.Session) -> None:
    if lanes.room.directory and any("on" in getattr(item, "fixturenames", ()) for item in session.items):
        started(session)


@pytest.fixture(scope="session")
def asked_for(request: pytest.FixtureRequest) -> list[str]:
    """Return the series that tests of this run ask for."""
    return started(request.session).series


@pytest.fixture(scope="session")
def on(request: pytest.FixtureRequest) -> Callable[[str], examine.Examined]:
    """Return a function: on("6.1") waits for the machine of that kernel and returns what it found."""
    shown: set[str] = set()

    def of(series: str) -> examine.Examined:
        examined = started(request.session).running[series].result()
        if series not in shown:
            shown.add(series)
            times = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in examined.seconds.items())
            print(f"\nlinux {examined.kernel or series}: {times}")
        return examined

    return of


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if machines := session.stash.get(MACHINES, None):
        machines.pool.shutdown(wait=True, cancel_futures=True)
        if exitstatus == 0:
            shutil.rmtree(machines.work)
