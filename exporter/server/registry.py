"""The unprivileged role: takes programs from the supervisor, reads their maps when scraped, and serves the text.

It is given map descriptors (read-only but where it has to delete entries) and the memory of totals. server_process.py
is about its process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from exporter import log
from exporter.binding import totals_layout
from exporter.binding.bind import BindingError
from exporter.collecting import self_metrics
from exporter.collecting.collector import CollectReport, ProgramCollector
from exporter.collecting.maps.open import open_tables, with_drained
from exporter.collecting.series.limit import Budget
from exporter.collecting.series.totals_store import Store
from exporter.collecting.text import exposition
from exporter.decoders import Names
from exporter.ipc import run_times
from exporter.kernel import bpf, cpus
from exporter.program import Program, Reason, State, from_json
from exporter.server.pages import SHARED, Pages
from exporter.spec import Limits, ProgramSpec
from exporter.web.access import AccessControl
from exporter.web.page import Page

DRAIN_LOOKS = 0.02  # seconds between two looks at drained maps; they have room for 0.1 s (docs/configuration.md)
DRAIN_YIELDS = 0.002  # seconds between two rounds while they fill up
DRAIN_FILL = 0.1  # of a map's places are taken, and it is emptied
LOOKS_APART = 50  # times as long as looking took: a look at a large map takes longer, and so does filling it
EXCHANGES = 3  # of programs that may come between while one scrape is answered
LARGEST_KEY = 512  # bytes: MAX_BPF_STACK, which bounds a key in kernel/bpf/hashtab.c


@dataclass(slots=True, eq=False)
class _Held:
    """A program, its collector, and what that last said. With `lock` a scrape joins a collection that is under way."""

    program: Program
    lock: threading.Lock
    spec: ProgramSpec | None = None
    collector: ProgramCollector | None = None
    fds: list[int] = field(default_factory=list)
    memory: int | None = None  # of its totals; one of `fds`
    map: int | None = None  # the first of its maps; one of `fds`
    texts: Sequence[exposition.Text] = ()
    taken: float = float("-inf")
    failed_with: str = ""  # what the log was last told
    drain_failed_with: str = ""

    def collect(self) -> tuple[Sequence[exposition.Text], CollectReport | None]:
        """The metrics now or half a second ago, and what there is to say of them; None where nothing is running."""
        with self.lock:
            if self.collector is None:
                return (), None
            if time.monotonic() - self.taken >= SHARED:
                self.texts = ()  # what nobody sends any more is free
                self.texts = exposition.write(self.collector.collect())
                self.taken = time.monotonic()
                self._tell(self.collector.report)
            return self.texts, self.collector.report

    def _tell(self, report: CollectReport) -> None:
        """One line when a fault comes, and not one a scrape."""
        if report.error and report.error != self.failed_with:
            log.get().warning("collection failed", program=self.program.name, why=report.error)
        elif self.failed_with and not report.error:
            log.get().info("collection works again", program=self.program.name)
        self.failed_with = report.error

    def drain(self) -> bool:
        """Make room in the drained maps, where one fills up. Gives whether one did."""
        with self.lock:
            if self.collector is None or not self.collector.drains:
                return False
            full, error = self.collector.drain(DRAIN_FILL)
            if error and error != self.drain_failed_with:
                log.get().warning("draining failed", program=self.program.name, why=error)
            self.drain_failed_with = error
            return full and not error

    def is_collected_as(self, other: _Held) -> bool:
        """Whether another message is of the same maps (each loading has a memory of its own) and metrics."""
        if self.collector is None or self.memory is None or other.memory is None:
            return False
        if other.program.state is not State.RUNNING or self.spec is None or other.spec is None:
            return False
        if (self.spec.metrics, self.spec.maps) != (other.spec.metrics, other.spec.maps):
            return False
        return os.path.sameopenfile(self.memory, other.memory)

    def go_on_as(self, other: _Held) -> None:
        """Only what is said of the program has changed. In place, and with the lock held: whoever is about to collect
        it finds its collector."""
        other.close()
        self.program, self.spec = other.program, other.spec
        if self.collector is not None:
            self.collector.program = self.program

    def close(self) -> None:
        """With the lock held."""
        self.collector, self.texts = None, ()
        for fd in self.fds:
            os.close(fd)
        self.fds = []


@dataclass(frozen=True, slots=True)
class _News:
    """What one message says of a program. `maps`: their descriptors by name."""

    held: _Held
    maps: dict[str, int]


@dataclass(slots=True)
class _Exchange:
    """Other programs, that are waited for until all `news` of them came."""

    names: list[str]
    awaited: int
    came: int = 0
    news: list[_News] = field(default_factory=list)


class ProgramRegistry:
    """All programs as the supervisor last told of them: the Source of the web application."""

    def __init__(self, names: Names, limits: Limits, *, unprivileged: bool) -> None:
        self._names = names
        self._standing = self_metrics.ServerStatus(unprivileged=unprivileged)
        self._exchange: _Exchange | None = None
        self._exchanges = 0
        self.access_control: AccessControl | None = None  # from the start of the HTTP server on
        self._label_length = limits.label_length
        self._budget = Budget(limits.series)
        self._draining = False
        self._expected: list[str] | None = None  # None until the supervisor has said which programs there are
        self._held: dict[str, _Held] = {}
        self._pages = Pages()
        self._own = self_metrics.SelfMetrics()
        # One collection at a time: all programs ask the same `names`, whose caches are not made for threads.
        self._lock = threading.Lock()

    def take(self, document: dict[str, Any], fds: list[int]) -> None:
        """One message of the supervisor: which programs there are, what became of one, or limits and what there is to
        say of the configuration. Owns `fds` from now on.

        What is not understood, of a supervisor of another version, is logged and changes nothing.
        """
        try:
            if "web" in document:
                self._take_web(document["web"])
            if document.keys() == {"web"}:
                return
            if "programs" in document:
                self._expect(document)
                return
            if "run_times" in document:
                self._say(run_times=run_times.from_json(document["run_times"]), armed=document["armed"])
                return
            if "configuration" in document:
                limits = Limits.model_validate(document["limits"])
                self._label_length, self._budget.most = limits.label_length, limits.series
                self._say(configuration=self_metrics.Configuration(**document["configuration"]))
                return
            spec = ProgramSpec.model_validate(document["spec"])
            count = len(document["maps"])
            maps = dict(zip(document["maps"], fds[:count], strict=True))
            memory = fds[count] if len(fds) > count else None
            first = fds[0] if count else None
            news = _News(_Held(from_json(document), self._lock, spec, fds=fds, memory=memory, map=first), maps)
        except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            for fd in fds:
                os.close(fd)
            self._not_understood(document, f"{type(error).__name__}: {error}".partition("\n")[0])
            news = None
        if self._exchange is not None:
            self._exchange.came += 1
            self._exchange.news += [news] if news else []
            if self._exchange.came == self._exchange.awaited:
                self._end_exchange(self._exchange)
        elif news is not None:
            with self._lock:
                self._put(news)

    def set_connected(self, connected: bool) -> None:
        """Whether its supervisor is there."""
        self._say(connected=connected)

    def _say(self, **changes: Any) -> None:
        """What the page says of the server itself. By one thread: the one that hears the supervisor."""
        self._standing = replace(self._standing, **changes)

    def _expect(self, document: dict[str, Any]) -> None:
        """Which programs there are from now on: at once, or with the `news` of some of them that follow."""
        names, awaited = list(document["programs"]), int(document.get("news", 0))
        # A new supervisor begins at 0.
        self._say(restarts=max(self._standing.restarts, int(document.get("restarts", 0))))
        exchange = _Exchange(names, awaited)
        if awaited:
            self._exchange = exchange
        else:
            self._end_exchange(exchange)

    def _end_exchange(self, exchange: _Exchange) -> None:
        """No scrape sees a part of it: one that is under way is answered anew (`exposition`)."""
        self._exchange = None
        with self._lock:
            for name in self._held.keys() - set(exchange.names):
                self._held.pop(name).close()
            for news in exchange.news:
                self._put(news)
            self._expected = exchange.names
            self._exchanges += 1

    def _put(self, news: _News) -> None:
        """With the lock held."""
        held = news.held
        before = self._held.get(held.program.name)
        if before and before.is_collected_as(held):
            before.go_on_as(held)
            return
        if before:
            before.close()  # two must not write into one memory
        self._open(held, news.maps)
        self._held[held.program.name] = held
        self._start_draining(held)

    def _take_web(self, news: dict[str, Any] | None) -> None:
        """What --web.config.file says by now; None where there is none."""
        if self.access_control is not None:
            self.access_control.apply(None if news is None else news["settings"])
        self._say(web=None if news is None else self_metrics.WebConfiguration(news["successful"], news["timestamp"]))

    def _not_understood(self, document: dict[str, Any], why: str) -> None:
        """A program that was not there before has failed by it; one that runs goes on."""
        log.get().error("a message of the supervisor was not understood: what runs goes on (restart both)", why=why)
        program = document.get("program")
        name = program.get("name") if isinstance(program, dict) else None
        expected = self._expected if self._exchange is None else self._exchange.names
        if name in (expected or []) and name not in self._held:
            text = f"{name}: collect: the supervisor's message was not understood: {why} (restart both)"
            self._held[name] = _Held(Program(name, State.FAILED, reason=Reason.INTERNAL, text=text), self._lock)

    def _open(self, held: _Held, fds: dict[str, int]) -> None:
        """Gives a running program its collector. One that cannot have one has failed, and harms no other."""
        program, spec = held.program, held.spec
        if program.state is not State.RUNNING or spec is None:
            return
        names = self._names.counting_apart(spec)
        store = self._store(held, spec)
        uncleared = {} if store is None else store.uncleared
        try:
            held.collector = ProgramCollector(
                program,
                spec,
                with_drained(open_tables(program, fds, cpus.possible()), program, spec.maps, fds, uncleared),
                names,
                possible=cpus.possible_numbers(),
                online=cpus.online,
                label_length=self._label_length,
                budget=self._budget,
                store=store,
            )
        except Exception as error:  # noqa: BLE001 - the loader has bound the metrics already, so this is a mistake of ours
            if isinstance(error, BindingError):
                reason, why = Reason.BINDING, "; ".join(error.messages)
            else:
                reason, why = Reason.INTERNAL, f"{type(error).__name__}: {error} (please report it)"
            text = f"{program.name}: collect: {why}"
            held.program = Program(program.name, State.FAILED, reason=reason, text=text)
            log.get().error("program failed", program=program.name, reason=str(reason), why=text)

    def _store(self, held: _Held, spec: ProgramSpec) -> Store | None:
        """Where the program's totals outlive this process; None where the supervisor had no memory for them."""
        if held.memory is None:
            return None
        try:
            return Store(held.memory, totals_layout.of_program(held.program, spec, cpus.possible(), self._label_length))
        except (BindingError, OSError, ValueError) as error:
            log.get().warning("totals will not outlive this server", program=held.program.name, why=str(error))
            return None

    def _start_draining(self, held: _Held) -> None:
        if held.collector is not None and held.collector.drains and not self._draining:
            self._draining = True
            threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> NoReturn:
        """Look at the drained maps many times a second, and empty those that fill up."""
        while True:
            began = time.monotonic()
            drained = [held.drain() for held in list(self._held.values())]
            # While keys pour in, only a scrape may come between.
            pause = max(DRAIN_LOOKS, LOOKS_APART * (time.monotonic() - began))
            time.sleep(DRAIN_YIELDS if any(drained) else pause)

    # server_watchdog.Checked

    def read_one_map(self, patience: float = 10.0) -> str:
        """Read a map, or know that one was just read; why it cannot be read, "" if it can or there is none."""
        if not self._lock.acquire(timeout=patience):
            return f"a collection has not ended for {patience:.0f} s"
        try:
            running = [held for held in self._held.values() if held.collector is not None and held.map is not None]
            if any(time.monotonic() - held.taken < patience for held in running):
                return ""
            for held in running[:1]:
                assert held.map is not None
                bpf.map_next_key(held.map, None, LARGEST_KEY)
        except OSError as error:
            return f"{held.program.name}: {error}"
        finally:
            self._lock.release()
        return ""

    # web.application.Source

    def programs(self) -> list[Program]:
        return [held.program for held in self._in_order()]

    def complete(self) -> bool:
        """Whether the supervisor has said of every program what it does."""
        return self._expected is not None and len(self._in_order()) == len(self._expected)

    def ready(self) -> bool:
        held = self._in_order()
        return (
            self._expected is not None
            and len(held) == len(self._expected)
            and all(h.program.state is not State.LOADING for h in held)
        )

    def exposition(self, names: frozenset[str] | None, *, openmetrics: bool, seconds: float | None = None) -> Page:
        until = None if seconds is None else time.monotonic() + seconds
        for _ in range(EXCHANGES):
            before = self._exchanges
            page = self._page(names, openmetrics, None if until is None else max(0.0, until - time.monotonic()))
            if before == self._exchanges:
                break
        return page

    def _page(self, names: frozenset[str] | None, openmetrics: bool, seconds: float | None) -> Page:
        chosen = [held for held in self._in_order() if names is None or held.program.name in names]
        standing = self._standing

        def say(reports: Mapping[str, CollectReport], late: Mapping[str, int]) -> list[exposition.Text]:
            return self._own.texts([held.program for held in chosen], reports, late, standing)

        return self._pages.page(chosen, say, openmetrics=openmetrics, seconds=seconds, of=standing)

    def _in_order(self) -> list[_Held]:
        held = self._held.copy()  # the receiving thread may add one meanwhile
        return [held[name] for name in self._expected or [] if name in held]
