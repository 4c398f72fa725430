"""Fetch what the tests of e2e download, while other tests run."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests import lanes
from tests.e2e import debian, wheels
from tests.matrix.kernels import cache_directory


def pytest_collection_finish(session: pytest.Session) -> None:
    """In the side lane, which has time at its start, fill the cache in a thread."""
    if lanes.room.directory and any(item.get_closest_marker("side") for item in session.items):
        threading.Thread(target=_fetch, daemon=True).start()


def _fetch() -> None:
    # What cannot be fetched now fails the test that needs it, with the reason.
    with contextlib.suppress(Exception), lanes.room.beside():
        for suite in wheels.PYTHONS:
            debian.root(cache_directory(), suite)
            wheels.dependencies(cache_directory(), suite)
