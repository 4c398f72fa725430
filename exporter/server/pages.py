"""Programs -> the page of metrics that answers a scrape before the scraper's timeout; concurrent scrapes share a page.

A program that is not collected by then is left out of the page, and a metric reports that. Its collection
continues in the thread, so that its results (label texts, lines) make the next one short. The last page of each format
is kept.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NoReturn, Protocol

from exporter.collecting.collector import CollectReport
from exporter.collecting.text import exposition
from exporter.program import Program
from exporter.web.page import Page

SHARED = 0.5  # seconds that one collection of a program, and one page, serves every scraper
COLLECTING = 0.8  # of the time until the scraper's timeout; the rest is for writing, compressing and sending the page


class Collected(Protocol):
    """A program that is collected when asked, or was a moment ago. `collect` may be called by any thread."""

    program: Program

    def collect(self) -> tuple[Sequence[exposition.Text], CollectReport | None]: ...


# Makes the self metrics from reports by program, and from in how many scrapes each was late so far.
MakeSelfMetrics = Callable[[Mapping[str, CollectReport], Mapping[str, int]], Sequence[exposition.Text]]


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True)
class _Round:
    """One collection of all programs of a page."""

    programs: Sequence[Collected]
    collected: list[tuple[Sequence[exposition.Text], CollectReport | None]] = field(default_factory=list)
    over: bool = False  # no scrape waits for it
    done: threading.Lock = field(default_factory=_locked)  # released at the end
    error: Exception | None = None

    def run(self) -> None:
        try:
            for one in self.programs:
                if self.over:
                    break
                self.collected.append(one.collect())
        except Exception as error:  # noqa: BLE001 - for the thread that waits
            self.error = error
        self.done.release()


@dataclass(frozen=True, slots=True)
class _Made:
    """A page and what it was made of."""

    of: object
    programs: Sequence[Collected]  # alive, so that no other has their ids
    texts: list[Sequence[exposition.Text]]
    at: float
    page: Page


class Pages:
    """Makes pages. Any number of threads may call it."""

    def __init__(self) -> None:
        # An executor would do, but a future with its condition takes as long as the rest of a small page.
        self._rounds: SimpleQueue[_Round] = SimpleQueue()
        self._collects = False  # the thread for them runs
        self._late: Counter[str] = Counter()
        self._made: dict[bool, _Made] = {}  # the last page of each format
        self._lock = threading.Lock()

    def page(
        self,
        programs: Sequence[Collected],
        self_metrics: MakeSelfMetrics,
        *,
        openmetrics: bool,
        seconds: float | None = None,
        of: object = None,
    ) -> Page:
        """Return the page of the programs' metrics and the self metrics.

        seconds  how long the scraper waits
        of       what else `self_metrics` depends on
        """
        with self._lock:
            last = self._made.get(openmetrics)
            if last is not None and time.monotonic() - last.at >= SHARED:
                del self._made[openmetrics]  # its memory is free for the next
        collected = self._collected(programs, seconds)
        texts = [each for each, _ in collected]
        of = (of, *map(id, programs))
        with self._lock:
            made = self._made.get(openmetrics)
            if (
                made is not None
                and made.of == of
                and len(made.texts) == len(texts) == len(programs)
                and all(mine is other for mine, other in zip(made.texts, texts, strict=True))
                and time.monotonic() - made.at < SHARED
            ):
                return made.page
            reports = {p.program.name: r for p, (_, r) in zip(programs, collected, strict=False) if r is not None}
            for late in programs[len(collected) :]:
                name = late.program.name
                self._late[name] += 1
                reports[name] = CollectReport(
                    success=False, error=f"{name}: collect: not done before the scraper's timeout"
                )
            everything = [*(text for each in texts for text in each), *self_metrics(reports, self._late)]
            page = Page(exposition.page(everything, openmetrics))
            self._made[openmetrics] = _Made(of, programs, texts, time.monotonic(), page)
            return page

    def _collected(
        self, programs: Sequence[Collected], seconds: float | None
    ) -> list[tuple[Sequence[exposition.Text], CollectReport | None]]:
        """Return the results of the first programs, as many as could be collected in time."""
        if seconds is None:
            return [one.collect() for one in programs]
        round_ = _Round(programs)
        self._rounds.put(round_)
        if not self._collects:
            with self._lock:
                if not self._collects:
                    threading.Thread(target=self._collect, name="collect", daemon=True).start()
                    self._collects = True
        round_.done.acquire(timeout=COLLECTING * seconds)
        round_.over = True
        if round_.error is not None:
            raise round_.error
        return list(round_.collected)

    def _collect(self) -> NoReturn:
        while True:
            self._rounds.get().run()
