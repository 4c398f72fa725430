"""Programs -> the page of metrics that a scrape is answered with: one for all who ask at the same time, and in time.

A scraper that says how long it waits gets what is collected by then; the rest is left out and said to be. The
collection itself goes on in its thread, so that what was learned in it (label texts, lines) makes the next one short.
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
COLLECTING = 0.8  # of the time that a scraper gives us; the rest is for writing, compressing and sending the page


class Collected(Protocol):
    """A program that is collected when asked, or was a moment ago. `collect` may be called by any thread."""

    program: Program

    def collect(self) -> tuple[Sequence[exposition.Text], CollectReport | None]: ...


# What the exporter says of itself: reports by program, and in how many scrapes each was late so far.
Own = Callable[[Mapping[str, CollectReport], Mapping[str, int]], Sequence[exposition.Text]]


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True)
class _Round:
    """One collection of all programs of a page."""

    programs: Sequence[Collected]
    collected: list[tuple[Sequence[exposition.Text], CollectReport | None]] = field(default_factory=list)
    over: bool = False  # nobody waits for it any more
    done: threading.Lock = field(default_factory=_locked)  # free once it is
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
    """For any number of threads."""

    def __init__(self) -> None:
        # An executor would do, but a future with its condition takes as long as the rest of a small page.
        self._rounds: SimpleQueue[_Round] = SimpleQueue()
        self._collects = False  # whether there is a thread for them
        self._late: Counter[str] = Counter()
        self._made: dict[bool, _Made] = {}  # the last page of each format
        self._lock = threading.Lock()

    def page(
        self,
        programs: Sequence[Collected],
        own: Own,
        *,
        openmetrics: bool,
        seconds: float | None = None,
        of: object = None,
    ) -> Page:
        """The programs' metrics and the exporter's own. `seconds`: how long the scraper waits; `of`: whatever else
        `own` depends on."""
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
            everything = [*(text for each in texts for text in each), *own(reports, self._late)]
            page = Page(exposition.page(everything, openmetrics))
            self._made[openmetrics] = _Made(of, programs, texts, time.monotonic(), page)
            return page

    def _collected(
        self, programs: Sequence[Collected], seconds: float | None
    ) -> list[tuple[Sequence[exposition.Text], CollectReport | None]]:
        """Of the first programs, as many as could be collected in time."""
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
