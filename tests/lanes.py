"""Two lanes of one test run, so that `make test` keeps two CPUs busy: `pytest -n 2 --dist each`.

Each of the two workers of pytest-xdist runs the tests of its lane. The main lane has unit, golden, kernel and e2e,
in this order. The side lane has the matrix, whose machines run in the background from the start, and the modules of e2e
that are marked `side`; those wait for the end of the kernel tests, which look at every program of the host, and of
FIRST. Without lanes (in any other call of pytest) one process runs all folders in the order of FOLDERS.

A test that is marked `alone` measures time or memory, or counts what the whole host does. While it runs, the machines
of the matrix are paused, and the side lane waits between two tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FOLDERS = ("unit", "golden", "kernel", "e2e", "matrix")
FIRST = "test_systemd.py"  # no other Debian machine runs beside those that it kills services in
MAIN, SIDE = "gw0", "gw1"  # the names that pytest-xdist gives its workers


def folder(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0]


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return all tests, folder after folder, FIRST at the front of its folder; else the order is as given."""
    return sorted(items, key=lambda item: (FOLDERS.index(folder(item)), item.path.name != FIRST))


def of_lane(items: Sequence[pytest.Item], worker: str) -> list[pytest.Item]:
    """Return the tests of one lane in its order."""
    if worker == MAIN:
        return in_order([item for item in items if not _is_side(item)])
    mine = [item for item in items if _is_side(item)]
    return sorted(mine, key=lambda item: (_waits_for_machine(item), folder(item) != "matrix"))


def _is_side(item: pytest.Item) -> bool:
    return folder(item) == "matrix" or item.get_closest_marker("side") is not None


def _waits_for_machine(item: pytest.Item) -> bool:
    """Return True for a test that reads what the machine of a kernel found: the side lane has those last."""
    return isinstance(item, pytest.Function) and "on" in item.fixturenames


@dataclass
class Room:
    """The host as a room: one test has it alone, or several are in it beside each other.

    The locks are those of flock(2) on two files of a directory that both lanes share. A test that wants to be alone
    closes the gate first, so that nobody enters while it waits for the others to leave. Without a directory nobody
    waits.
    """

    directory: Path | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._locked("gate", fcntl.LOCK_EX), self._locked("room", fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        with contextlib.ExitStack() as inside:
            with self._locked("gate", fcntl.LOCK_SH):
                inside.enter_context(self._locked("room", fcntl.LOCK_SH))
            yield

    def is_wanted(self) -> bool:
        """Return True if a test waits to be alone."""
        try:
            with self._locked("gate", fcntl.LOCK_SH | fcntl.LOCK_NB):
                return False
        except BlockingIOError:
            return True

    def end_kernel_tests(self) -> None:
        """Let the side lane begin with its tests of e2e."""
        if self.directory:
            (self.directory / "kernel-tests-ended").touch()

    def wait_for_kernel_tests(self) -> None:
        while self.directory and not (self.directory / "kernel-tests-ended").exists():
            time.sleep(0.2)

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        if self.directory is None:
            yield
            return
        with (self.directory / name).open("a") as file:
            fcntl.flock(file, how)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may have the file open still


room = Room()  # the one of this process; tests/conftest.py gives it the directory of the run
