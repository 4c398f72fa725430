"""A host whose processes choose names and ports to do harm: the short form of `benchmarks/hostile.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import hostile
from tests import daemon

pytestmark = pytest.mark.alone

ENTRIES = 500
PROCESSES = 3000


def test_random_names_and_ports_stay_within_the_bounds(tmp_path: Path) -> None:
    config = hostile.write_config(tmp_path, ENTRIES, bundled=("tcp_latency",))
    with daemon.running(config, tmp_path) as exporter:
        exporter.wait_ready()
        outcome = hostile.attack(exporter, tmp_path, PROCESSES, ENTRIES)
    assert outcome.processes == PROCESSES
    assert outcome.lost, "the map never was full"
    assert outcome.wrong == []
