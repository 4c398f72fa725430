"""Options, fixtures and rules of the whole test run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The time of one example depends on what else runs on the machine, so it is no failure.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TESTS = Path(__file__).resolve().parent
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
    """True if this run rewrites expectations."""
    return bool(request.config.getoption("--update-expected"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that load programs fail without root rather than skip: a skipped kernel test looks like a passed one."""
    if os.geteuid() != 0 and item.path.relative_to(TESTS).parts[0] in NEED_ROOT:
        pytest.fail("needs root (`make unit` runs the tests that do not)", pytrace=False)
