"""Recorded maps of real kernels -> the exact page. Each NAME.json (`run --record`) has its NAME.prom beside it.

After an intended change: pytest tests/golden --update-expected, and review the difference like code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from exporter.collecting import recording, self_metrics
from exporter.collecting.text.exposition import page, write
from exporter.decoders import Names

HERE = Path(__file__).parent
OF_THIS_PROCESS = re.compile("(# (HELP|TYPE) )?(process_|bpf_exporter_build_info)")
NAMES = sorted(path.stem for path in HERE.glob("*.json"))


def golden_page(name: str, host: Path) -> str:
    """The program's metrics and what the exporter says of it, on a host that has no names and a clock that stands."""
    document = json.loads((HERE / f"{name}.json").read_text())
    names = Names.open(proc=host, sys=host)
    collector = recording.replay(document, names, clock=lambda: 0.0)
    families = collector.collect()
    assert collector.report.error == ""
    collector.report.seconds = 0.0  # the one figure that is measured here
    reports = {collector.program.name: collector.report}
    texts = write(families) + self_metrics.SelfMetrics().texts(
        [collector.program], reports, {}, self_metrics.ServerStatus(unprivileged=True)
    )
    lines = b"".join(page(texts, openmetrics=False)).decode().splitlines(keepends=True)
    return "".join(line for line in lines if not OF_THIS_PROCESS.match(line))


def test_there_are_recordings() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_page_is_the_golden_one(name: str, tmp_path: Path, update_expected: bool) -> None:
    page = golden_page(name, tmp_path)
    expected = HERE / f"{name}.prom"
    if update_expected:
        expected.write_text(page)
    assert page == expected.read_text()
