"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of who else runs here, and nothing of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TESTS = Path(__file__).resolve().parent
NEED_ROOT = ("kernel", "matrix", "e2e")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that load programs fail without root rather than skip: a skipped kernel test looks like a passed one."""
    if os.geteuid() != 0 and item.path.relative_to(TESTS).parts[0] in NEED_ROOT:
        pytest.fail("needs root (`make unit` runs the tests that do not)", pytrace=False)
