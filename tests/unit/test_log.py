"""Log lines: their formats, levels for the journal, line breaks in values, and repeats."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from exporter import log
from exporter.log import KINDS, LINES, WINDOW, RepeatLimit


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def lines(style: log.Format, level: str = "info") -> tuple[io.StringIO, structlog.typing.FilteringBoundLogger]:
    stream = io.StringIO()
    log.configure(level, style, stream)
    return stream, log.get()


def test_json_lines_are_objects_with_level_time_and_event() -> None:
    stream, logger = lines("json")
    logger.warning("map full", program="a", entries=3)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "warning", "event": "map full", "program": "a", "entries": 3}


@pytest.mark.parametrize("style", ["logfmt", "json", "journal"])
def test_a_value_with_a_line_break_stays_on_its_line(style: log.Format) -> None:
    stream, logger = lines(style)
    logger.info("seen", unit="a\nlevel=error event=forged")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(("level", "number"), [("info", 6), ("warning", 4), ("error", 3)])
def test_the_journal_is_told_the_level_and_keeps_the_time_itself(level: str, number: int) -> None:
    stream, logger = lines("journal")
    getattr(logger, level)("program running", program="a b")
    assert stream.getvalue() == f'<{number}>event="program running" program="a b"\n'


def test_what_systemd_names_as_the_journal_is_written_to_as_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named, beginning in ((True, "<6>event="), (False, "timestamp=")):
        with (tmp_path / "stream").open("w") as stream:
            status = os.fstat(stream.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino if named else 0}")
            log.configure("info", "auto", stream)
            log.get().info("here")
        assert (tmp_path / "stream").read_text().startswith(beginning)


def test_lines_that_differ_in_numbers_alone_are_limited_and_counted() -> None:
    now = 0.0
    repeats = RepeatLimit(lambda: now)

    def said(count: int, event: str = "server ended") -> list[dict[str, object]]:
        kept: list[dict[str, object]] = []
        for number in range(count):
            try:
                kept.append(dict(repeats(None, "error", {"event": event, "after": f"0.{number} s"})))
            except structlog.DropEvent:
                continue
        return kept

    first = said(100)
    assert [line["after"] for line in first] == [f"0.{number} s" for number in range(LINES)]
    assert [line.get("more") for line in first] == [None] * (LINES - 1) + ["left out for 60 s"]
    assert len(said(2, "another event")) == 2
    now = WINDOW
    assert [line.get("left_out") for line in said(2)] == [100 - LINES, None]
    now = 3 * WINDOW
    assert [line.get("left_out") for line in said(1)] == [None]


def test_programs_whose_names_differ_in_a_number_are_not_one_kind() -> None:
    repeats = RepeatLimit(lambda: 0.0)
    for number in range(100):
        assert repeats(None, "info", {"event": "loading", "program": f"p{number}"})


def test_what_is_remembered_of_repeats_is_bounded() -> None:
    repeats = RepeatLimit(lambda: 0.0)
    for number in range(3 * KINDS):
        repeats(None, "info", {"event": "x" * (number + 1)})
    assert len(repeats._kinds) == KINDS
