"""The benchmark of events still measures: a short run of it, without a peer and without a word on its figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import events, report, rows

pytestmark = pytest.mark.alone


def test_events_are_measured_beside_an_empty_program(tmp_path: Path) -> None:
    left = tmp_path / "rows.json"
    options = ["--rounds", "1", "--seconds", "0.05", "--json", str(left)]
    command = [sys.executable, "-m", "benchmarks.events", *options]
    done = subprocess.run(command, cwd=report.CHECKOUT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = rows.read(left)
    assert len(found) == 3 * len(events.CASES)
    assert "ratio  target" in done.stdout
    for row in found:
        assert row.ours is not None
        assert row.met is None  # nothing to compare with
    statistics = [row for row in found if row.what.endswith("as the statistics say")]
    assert all(row.ours and row.floor for row in statistics), "no program was run"
