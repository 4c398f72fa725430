"""Memory stays where it is however long the exporter runs: keys come and go, and what was kept of them goes too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import rows
from tests.daemon import ROOT

pytestmark = pytest.mark.alone

SCRAPES = 2000  # 20,000 keys come and go: 300 bytes kept of each would be twice what is allowed
GROWTH = 2.5  # MB


def test_changing_keys_leave_nothing_behind(tmp_path: Path) -> None:
    left = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.memory", "--only-churn", "--churn", str(SCRAPES), "--json", str(left)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (found,) = rows.read(left)
    assert found.ours is not None
    assert found.floor is not None
    assert found.ours - found.floor < GROWTH
