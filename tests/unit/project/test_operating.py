"""docs/operating.md names every flag of `run`, every metric of the exporter itself with its labels, every reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter import cli
from exporter.collecting.self_metrics import METRICS
from exporter.program import Reason, State

PAGE = (Path(__file__).resolve().parents[3] / "docs/operating.md").read_text()


def test_every_flag_of_run_is_there_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    flags = set(re.findall(r"^  (--[\w.-]+)", capsys.readouterr().out, re.MULTILINE))
    assert set(re.findall(r"^\| `(--[\w.-]+)", PAGE, re.MULTILINE)) == flags


def test_every_metric_of_its_own_is_there_with_its_labels() -> None:
    rows = re.findall(r"^\| `(bpf_exporter_\w+)` \| ([\w, ]*)\|", PAGE, re.MULTILINE)
    written = {name: {label.strip() for label in labels.split(",") if label.strip()} for name, labels in rows}
    ours = {metric.name: set(metric.labels) for metric in METRICS if metric.name.startswith("bpf_exporter_")}
    assert written == ours


def test_every_state_and_reason_is_there() -> None:
    assert [state for state in State if not re.search(rf"\b{state}\b", PAGE)] == []
    words = PAGE.rpartition("`reason` is one of a few words: ")[2].partition(".")[0].replace("\n", " ")
    assert {word.strip() for word in words.split(",")} == {reason.value for reason in Reason} - {""}
