"""The server's programs: each message of the supervisor changes them, and a scrape is answered from their maps.

The server has map descriptors (read-only but where it deletes entries itself) and the memory of totals. process.py is
about its process.
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
from exporter.ipc import messages
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import ConfigState, Hello, Measurements, ProgramList, ProgramState, ToServer, WebState
from exporter.kernel import bpf, cpus
from exporter.program import Program, Reason, State
from exporter.server.pages import SHARED, Pages
from exporter.spec import Limits, ProgramSpec
from exporter.web.access import AccessControl
from exporter.web.page import Page

DRAIN_INTERVAL = 0.02  # seconds between two checks of drained maps; they have room for 0.1 s (docs/configuration.md)
DRAIN_YIELD = 0.002  # seconds between two rounds while they fill up
DRAIN_FILL = 0.1  # the part of a map's entries that is in use when it is emptied
DRAIN_SHARE = 50  # times as long as a check took: that of a large map takes longer, and so does filling it
EXCHANGES = 3  # of programs that may come between while one scrape is answered
LARGEST_KEY = 512  # bytes: MAX_BPF_STACK, which bounds a key in kernel/bpf/hashtab.c
NOT_UNDERSTOOD = "a message of the supervisor was not understood: the programs go on as they are (restart both)"


@dataclass(slots=True, eq=False)
class ServedProgram:
    """A program, its collector, and what that last returned. With `lock` a scrape joins a collection under way.

    maps    descriptors by map name
    totals  the descriptor of the memory of its totals
    """

    program: Program
    lock: threading.Lock
    spec: ProgramSpec | None = None
    maps: Mapping[str, int] = field(default_factory=dict)
    totals: int | None = None
    collector: ProgramCollector | None = None
    texts: Sequence[exposition.Text] = ()
    collected: float = float("-inf")
    logged_error: str = ""
    logged_drain_error: str = ""

    @classmethod
    def of(cls, message: ProgramState, fds: Sequence[int], lock: threading.Lock) -> ServedProgram:
        """Return the program of a message; it owns the descriptors from now on."""
        maps = dict(zip(message.maps, fds, strict=False))
        return cls(message.program, lock, message.spec, maps, fds[-1] if message.totals else None)

    def collect(self) -> tuple[Sequence[exposition.Text], CollectReport | None]:
        """Return the metrics now or half a second ago, and a report of them; None where no program runs."""
        with self.lock:
            if self.collector is None:
                return (), None
            if time.monotonic() - self.collected >= SHARED:
                self.texts = ()  # what no scrape sends any more is free
                self.texts = exposition.write(self.collector.collect())
                self.collected = time.monotonic()
                self._log(self.collector.report)
            return self.texts, self.collector.report

    def _log(self, report: CollectReport) -> None:
        """Log when a fault comes and when it goes, and not with every scrape."""
        if report.error and report.error != self.logged_error:
            log.get().warning("collection failed", program=self.program.name, error=report.error)
        elif self.logged_error and not report.error:
            log.get().info("collection works again", program=self.program.name)
        self.logged_error = report.error

    def drain(self) -> bool:
        """Empty the drained maps if one fills up. Return whether one did."""
        with self.lock:
            if self.collector is None or not self.collector.drains:
                return False
            full, error = self.collector.drain(DRAIN_FILL)
            if error and error != self.logged_drain_error:
                log.get().warning("draining failed", program=self.program.name, error=error)
            self.logged_drain_error = error
            return full and not error

    def has_collector_for(self, other: ServedProgram) -> bool:
        """Return whether the other has the same maps (each loading has a memory of its own) and metrics."""
        if self.collector is None or self.totals is None or other.totals is None:
            return False
        if other.program.state is not State.RUNNING or self.spec is None or other.spec is None:
            return False
        if (self.spec.metrics, self.spec.maps) != (other.spec.metrics, other.spec.maps):
            return False
        return os.path.sameopenfile(self.totals, other.totals)

    def update_from(self, other: ServedProgram) -> None:
        """Take the other's state and spec, and keep the collector: a scrape that is about to collect it finds it.

        With the lock held.
        """
        other.close()
        self.program, self.spec = other.program, other.spec
        if self.collector is not None:
            self.collector.program = self.program

    def close(self) -> None:
        """With the lock held."""
        self.collector, self.texts = None, ()
        messages.close([*self.maps.values(), *([] if self.totals is None else [self.totals])])
        self.maps, self.totals = {}, None


@dataclass(slots=True)
class _Exchange:
    """A list of programs that takes effect when `awaited` programs came."""

    names: Sequence[str]
    awaited: int
    came: int = 0
    programs: list[ServedProgram] = field(default_factory=list)


class ProgramRegistry:
    """All programs as the supervisor last described them: the Source of the web application."""

    def __init__(self, names: Names, limits: Limits, *, unprivileged: bool) -> None:
        self._names = names
        self._status = self_metrics.ServerStatus(unprivileged=unprivileged)
        self._exchange: _Exchange | None = None
        self._exchanges = 0
        self.access_control: AccessControl | None = None  # from the start of the HTTP server on
        self._label_length = limits.label_length
        self._budget = Budget(limits.series)
        self._draining = False
        self._listed: Sequence[str] | None = None  # names in the configuration's order; None before the first message
        self._served: dict[str, ServedProgram] = {}
        self._pages = Pages()
        self._self_metrics = self_metrics.SelfMetrics()
        # One collection at a time: all programs ask the same `names`, whose caches are not made for threads.
        self._lock = threading.Lock()

    def update(self, message: ToServer, fds: Sequence[int] = ()) -> None:
        """Apply one message of the supervisor. Owns `fds` from now on, except those of Hello."""
        match message:
            case Hello():
                # A new supervisor begins at 0.
                self._set_status(restarts=max(self._status.restarts, message.restarts))
                self._set_web(message.web)
                self._begin_exchange(_Exchange(message.programs, 0))
            case ProgramList():
                self._begin_exchange(_Exchange(message.programs, message.following))
            case ProgramState():
                self._receive(ServedProgram.of(message, fds, self._lock))
            case Measurements():
                self._set_status(run_times=message.run_times, armed=message.armed)
            case ConfigState():
                self._label_length, self._budget.most = message.limits.label_length, message.limits.series
                self._set_status(configuration=message.report)
            case WebState():
                self._set_web(message)
            case _:
                raise AssertionError(message.kind)

    def refuse(self, error: ProtocolError) -> None:
        """Go on after a message that was not understood. A program that was not there before has failed by it."""
        log.get().error(NOT_UNDERSTOOD, error=str(error))
        if error.program is None:
            return
        listed = self._listed if self._exchange is None else self._exchange.names
        if error.program in (listed or []) and error.program not in self._served:
            text = f"{error.program}: collect: the supervisor's message was not understood: {error} (restart both)"
            program = Program(error.program, State.FAILED, reason=Reason.INTERNAL, text=text)
            self._served[error.program] = ServedProgram(program, self._lock)
        self._receive(None)

    def set_connected(self, connected: bool) -> None:
        """Say on the page whether the supervisor is connected."""
        self._set_status(connected=connected)

    def _set_status(self, **changes: Any) -> None:
        """Change what the page says of the server itself. Only the thread that follows the supervisor calls this."""
        self._status = replace(self._status, **changes)

    def _set_web(self, state: WebState | None) -> None:
        """Apply the web configuration; None where there is none. One that cannot be used counts as a failed reload."""
        web = None if state is None else self_metrics.WebConfiguration(state.successful, state.timestamp)
        try:
            if self.access_control is not None:
                self.access_control.apply(None if state is None else state.settings)
        except (OSError, ValueError) as error:
            log.get().error("web configuration cannot be used: the earlier one stays", error=str(error))
            if (earlier := self._status.web or web) is not None:
                web = replace(earlier, successful=False)
        self._set_status(web=web)

    def _begin_exchange(self, exchange: _Exchange) -> None:
        if self._exchange is not None:  # its supervisor is gone
            for served in self._exchange.programs:
                served.close()
        self._exchange = exchange
        self._end_exchange_if_complete(exchange)

    def _receive(self, served: ServedProgram | None) -> None:
        """Take a program in, or keep it until its exchange is complete. None: its message was refused."""
        if self._exchange is not None:
            self._exchange.came += 1
            self._exchange.programs += [served] if served else []
            self._end_exchange_if_complete(self._exchange)
        elif served is not None:
            with self._lock:
                self._put(served)

    def _end_exchange_if_complete(self, exchange: _Exchange) -> None:
        """No scrape sees a part of an exchange: one that is under way is answered anew (`exposition`)."""
        if exchange.came < exchange.awaited:
            return
        self._exchange = None
        with self._lock:
            for name in self._served.keys() - set(exchange.names):
                self._served.pop(name).close()
            for served in exchange.programs:
                self._put(served)
            self._listed = exchange.names
            self._exchanges += 1

    def _put(self, served: ServedProgram) -> None:
        """With the lock held."""
        before = self._served.get(served.program.name)
        if before and before.has_collector_for(served):
            before.update_from(served)
            return
        if before:
            before.close()  # two must not write into one memory
        self._open(served)
        self._served[served.program.name] = served
        self._start_draining(served)

    def _open(self, served: ServedProgram) -> None:
        """Give a running program its collector. One that cannot have one has failed, and harms no other."""
        program, spec = served.program, served.spec
        if program.state is not State.RUNNING or spec is None:
            return
        names = self._names.counting_apart(spec)
        store = self._store(served, spec)
        maps, uncleared = served.maps, {} if store is None else store.uncleared
        try:
            served.collector = ProgramCollector(
                program,
                spec,
                with_drained(open_tables(program, maps, cpus.possible()), program, spec.maps, maps, uncleared),
                names,
                possible=cpus.possible_numbers(),
                online=cpus.online,
                label_length=self._label_length,
                budget=self._budget,
                store=store,
            )
        except Exception as error:  # noqa: BLE001 - the loader has bound the metrics already, so this is a mistake of ours
            if isinstance(error, BindingError):
                reason, cause = Reason.BINDING, "; ".join(error.messages)
            else:
                reason, cause = Reason.INTERNAL, f"{type(error).__name__}: {error} (please report it)"
            text = f"{program.name}: collect: {cause}"
            served.program = Program(program.name, State.FAILED, reason=reason, text=text)
            log.get().error("program failed", program=program.name, reason=str(reason), error=text)

    def _store(self, served: ServedProgram, spec: ProgramSpec) -> Store | None:
        """Return where the program's totals outlive this process; None where the supervisor had no memory for them."""
        if served.totals is None:
            return None
        try:
            return Store(
                served.totals, totals_layout.of_program(served.program, spec, cpus.possible(), self._label_length)
            )
        except (BindingError, OSError, ValueError) as error:
            log.get().warning("totals will not outlive this server", program=served.program.name, error=str(error))
            return None

    def _start_draining(self, served: ServedProgram) -> None:
        if served.collector is not None and served.collector.drains and not self._draining:
            self._draining = True
            threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> NoReturn:
        """Check the drained maps many times a second, and empty those that fill up."""
        while True:
            began = time.monotonic()
            drained = [served.drain() for served in list(self._served.values())]
            # While keys pour in, only a scrape may come between.
            pause = max(DRAIN_INTERVAL, DRAIN_SHARE * (time.monotonic() - began))
            time.sleep(DRAIN_YIELD if any(drained) else pause)

    # watchdog.Checked

    def read_one_map(self, patience: float = 10.0) -> str:
        """Read a map, unless one was just read. Return the error, "" for none and where there is no map."""
        if not self._lock.acquire(timeout=patience):
            return f"a collection has not ended for {patience:.0f} s"
        try:
            running = [served for served in self._served.values() if served.collector is not None and served.maps]
            if any(time.monotonic() - served.collected < patience for served in running):
                return ""
            for served in running[:1]:
                bpf.map_next_key(next(iter(served.maps.values())), None, LARGEST_KEY)
        except OSError as error:
            return f"{served.program.name}: {error}"
        finally:
            self._lock.release()
        return ""

    # web.application.Source

    def programs(self) -> list[Program]:
        return [served.program for served in self._in_order()]

    def complete(self) -> bool:
        """Return whether the supervisor has described every program."""
        return self._listed is not None and len(self._in_order()) == len(self._listed)

    def ready(self) -> bool:
        """Return whether every program was tried."""
        return self.complete() and all(program.state is not State.LOADING for program in self.programs())

    def exposition(self, names: frozenset[str] | None, *, openmetrics: bool, seconds: float | None = None) -> Page:
        until = None if seconds is None else time.monotonic() + seconds
        for _ in range(EXCHANGES):
            before = self._exchanges
            page = self._page(names, openmetrics, None if until is None else max(0.0, until - time.monotonic()))
            if before == self._exchanges:
                break
        return page

    def _page(self, names: frozenset[str] | None, openmetrics: bool, seconds: float | None) -> Page:
        chosen = [served for served in self._in_order() if names is None or served.program.name in names]
        status = self._status

        def own(reports: Mapping[str, CollectReport], late: Mapping[str, int]) -> list[exposition.Text]:
            return self._self_metrics.texts([served.program for served in chosen], reports, late, status)

        return self._pages.page(chosen, own, openmetrics=openmetrics, seconds=seconds, of=status)

    def _in_order(self) -> list[ServedProgram]:
        served = self._served.copy()  # the receiving thread may add one meanwhile
        return [served[name] for name in self._listed or [] if name in served]
