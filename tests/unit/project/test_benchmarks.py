"""What benchmarks leave for the report, and the page that it makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report, rows

PROMISED = rows.Row("count it", 12.34, "ns", peer=50.0, floor=4.0, ratio=0.2468, target=0.5)
SLOW = rows.Row("time it", 1234.5, "ns", ratio=0.9, target=2 / 3)
ALONE = rows.Row("all of it", 0.0567, "s")
SCRIPT = report.Script("events", "Events", "What an event costs.")


def test_rows_come_back_as_they_were_left(tmp_path: Path) -> None:
    rows.write(tmp_path / "rows.json", [PROMISED, SLOW, ALONE])
    assert rows.read(tmp_path / "rows.json") == [PROMISED, SLOW, ALONE]


def test_a_row_may_say_less_and_more(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"what": "x", "ours": 1.0, "unit": "s", "rounds": 3}]))
    assert rows.read(tmp_path / "rows.json") == [rows.Row("x", 1.0, "s")]


@pytest.mark.parametrize(("row", "met"), [(PROMISED, True), (SLOW, False), (ALONE, None)])
def test_a_target_is_met_missed_or_not_there(row: rows.Row, met: bool | None) -> None:
    assert row.met is met


def test_section_is_a_table_with_ratios_first() -> None:
    assert report.section(SCRIPT, [PROMISED, SLOW, ALONE]) == (
        "## Events\n\n"
        "What an event costs. By `benchmarks/events.py`.\n\n"
        "| ratio | target | what | ours | peer | floor | unit |\n"
        "| ---: | --- | --- | ---: | ---: | ---: | --- |\n"
        "| 0.247 | <= 0.5, met | count it | 12.3 | 50 | 4 | ns |\n"
        "| 0.9 | <= 0.667, MISSED | time it | 1,234 | - | - | ns |\n"
        "| - | - | all of it | 0.0567 | - | - | s |\n"
    )


def test_what_is_missed_is_said_first() -> None:
    assert report.in_short([PROMISED, ALONE]) == "Of 1 targets 1 are met.\n"
    assert report.in_short([PROMISED, SLOW, ALONE]) == (
        "Of 2 targets 1 are met, not:\n\n- time it: 0.9 instead of 0.667\n"
    )


def test_a_script_that_failed_is_named() -> None:
    assert "`benchmarks/events.py` failed" in report.section(SCRIPT, None)


def test_the_report_says_nothing_of_where_it_was_made(tmp_path: Path) -> None:
    facts = report._machine(None)
    assert str(report.CHECKOUT) not in facts
    assert "kernel: Linux" in facts
