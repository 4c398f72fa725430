"""Options, fixtures and rules of the whole test run."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import lanes

# The time of one example depends on what else runs on the machine, so it is no failure.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

NEED_ROOT = ("kernel", "matrix", "e2e")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-expected",
        action="store_true",
        help="write what the tests found over what they expect (golden pages, messages of bad configurations and of "
        "failing programs, the JSON schema); review the difference like code",
    )


@pytest.fixture
def update_expected(request: pytest.FixtureRequest) -> bool:
    """Return True if this run rewrites expectations."""
    return bool(request.config.getoption("--update-expected"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: needs the host for itself (tests/lanes.py)")
    config.addinivalue_line("markers", "side: may run beside the other tests of e2e (tests/lanes.py)")
    if directory := _worker_input(config).get("lanes"):
        lanes.room.directory = Path(directory)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist that it is a lane, and where the lanes of this run meet."""
    if node.config.option.dist == "each":
        if not lanes.room.directory:
            lanes.room.directory = Path(tempfile.mkdtemp(prefix="bpf-exporter-lanes-"))
        node.workerinput["lanes"] = str(lanes.room.directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    if lanes.room.directory and not _worker_input(config):
        shutil.rmtree(lanes.room.directory)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the order of folders; pytest-randomly has shuffled modules and the tests of each before."""
    if lanes.room.directory:
        items[:] = lanes.of_lane(items, _worker_input(config)["workerid"])
    else:
        items[:] = lanes.in_order(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait until the test may run beside what the other lane does."""
    side = item.get_closest_marker("side")
    if lanes.folder(item) == "e2e" and not side and item.path.name != lanes.FIRST:
        lanes.room.end_kernel_tests()
    with contextlib.ExitStack() as inside:
        if side:
            lanes.room.wait_for_kernel_tests()
            inside.enter_context(lanes.room.beside())
        elif item.get_closest_marker("alone"):
            inside.enter_context(lanes.room.alone())
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _worker_input(session.config).get("workerid") == lanes.MAIN:
        lanes.room.end_kernel_tests()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(
        f"order of tests: pytest -p randomly --randomly-seed={config.getoption('randomly_seed')}"
    )


def _worker_input(config: pytest.Config) -> dict[str, Any]:
    """Return what the controller of pytest-xdist gave this worker; nothing where there are no workers."""
    return getattr(config, "workerinput", {})


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail, and do not skip, tests that need root without it: a skipped kernel test looks like a passed one."""
    if os.geteuid() != 0 and lanes.folder(item) in NEED_ROOT:
        pytest.fail("needs root (`make unit` runs the tests that do not)", pytrace=False)
