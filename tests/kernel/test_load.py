"""Load that goes on: the short form of `benchmarks/load.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import load
from tests import daemon

pytestmark = pytest.mark.alone


def test_load_is_counted_to_the_event_and_nothing_grows(tmp_path: Path) -> None:
    with daemon.running(load.write_config(tmp_path), tmp_path) as exporter:
        exporter.wait_ready()
        outcome = load.bear(exporter, 5)
    assert len(outcome.scrapes.seconds) > 1
    assert outcome.wrong == []
