"""Pages out of collected programs: one for all who ask at once, and what is late is left out."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping, Sequence

import pytest

from exporter.collecting.collector import CollectReport
from exporter.collecting.text import exposition
from exporter.collecting.text.exposition import family
from exporter.program import Program, State
from exporter.server.pages import Pages
from exporter.web.page import Page

ENOUGH = 30.0  # seconds; for what must come at once on an idle machine


class Counting:
    """A program whose only metric says how often it was collected; it waits for `may`."""

    def __init__(self, name: str) -> None:
        self.program = Program(name, State.RUNNING)
        self.collections = 0
        self.may = threading.Event()
        self.may.set()
        self.texts: Sequence[exposition.Text] = ()

    def collect(self) -> tuple[Sequence[exposition.Text], CollectReport]:
        assert self.may.wait(ENOUGH)
        if not self.texts:
            self.collections += 1
            self.texts = exposition.write([family(self.program.name, "gauge", "", (), [((), self.collections)])])
        return self.texts, CollectReport()


def own(reports: Mapping[str, CollectReport], late: Mapping[str, int]) -> list[exposition.Text]:
    success = [((name,), int(report.success)) for name, report in reports.items()]
    return exposition.write(
        [
            family("success", "gauge", "", ("program",), success),
            family("late_total", "counter", "", ("program",), [((name,), late[name]) for name in reports]),
        ]
    )


def lines(page: Page) -> list[str]:
    return [line for line in b"".join(page.plain).decode().splitlines() if not line.startswith("#")]


def test_a_snapshot_makes_one_page_for_all_and_compresses_it_once() -> None:
    pages, a = Pages(), Counting("a")
    first = pages.page([a], own, openmetrics=False)
    assert pages.page([a], own, openmetrics=False) is first
    assert first.gzipped() is first.gzipped()
    assert gzip.decompress(b"".join(first.gzipped())) == b"".join(first.plain)
    assert pages.page([a], own, openmetrics=True) is not first
    a.texts = ()
    assert lines(pages.page([a], own, openmetrics=False))[0] == "a 2"


def test_a_page_is_made_anew_once_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pages, a = Pages(), Counting("a")
    first = pages.page([a], own, openmetrics=False)
    assert pages.page([a], own, openmetrics=False, of=(1,)) is not first  # something else of it has changed
    monkeypatch.setattr("exporter.server.pages.SHARED", 0.0)
    second = pages.page([a], own, openmetrics=False)
    assert pages.page([a], own, openmetrics=False) is not second


def test_what_is_not_done_in_time_is_left_out_and_said_to_be() -> None:
    pages, a, b = Pages(), Counting("a"), Counting("b")
    b.may.clear()
    try:
        assert lines(pages.page([a, b], own, openmetrics=False, seconds=2)) == [
            "a 1",
            'success{program="a"} 1',
            'success{program="b"} 0',
            'late_total{program="a"} 0',
            'late_total{program="b"} 1',
        ]
    finally:
        b.may.set()
    assert lines(pages.page([a, b], own, openmetrics=False, seconds=ENOUGH)) == [
        "a 1",
        "b 1",
        'success{program="a"} 1',
        'success{program="b"} 1',
        'late_total{program="a"} 0',
        'late_total{program="b"} 1',
    ]


def test_a_scraper_that_gave_up_does_not_keep_the_next_one_waiting() -> None:
    pages, a, b = Pages(), Counting("a"), Counting("b")
    a.may.clear()
    try:
        for _ in range(20):
            pages.page([a, b], own, openmetrics=False, seconds=0.01)
    finally:
        a.may.set()
    page = pages.page([a, b], own, openmetrics=False, seconds=ENOUGH)
    assert lines(page)[:2] == ["a 1", "b 1"]
    assert (a.collections, b.collections) == (1, 1)


def test_an_error_of_a_collection_is_the_answers() -> None:
    class Broken(Counting):
        def collect(self) -> tuple[Sequence[exposition.Text], CollectReport]:
            raise OSError("no such luck")

    for seconds in (None, ENOUGH):
        with pytest.raises(OSError, match="no such luck"):
            Pages().page([Broken("a")], own, openmetrics=False, seconds=seconds)
