"""The privileged role: has programs loaded, keeps every descriptor, and restarts the server when it dies.

No network traffic, no numpy and no LLVM here. One thread, one loop; loaders and the server are forked from it, so that
they share its memory, and die with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from exporter import __version__, log
from exporter.decoders.names import open_for_root
from exporter.ipc import isolated, messages
from exporter.ipc.protocol import Hello, Measurements
from exporter.ipc.run_times import RunTimes
from exporter.spec import Config
from exporter.supervisor.adoption import Compare
from exporter.supervisor.fd_store import FdStore
from exporter.supervisor.lifetimes import Lifetimes
from exporter.supervisor.loaders import LoadFunction
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.overhead import Overhead, OverheadOptions
from exporter.supervisor.programs import ManagedPrograms, ServerLink
from exporter.supervisor.quarantine import CrashGuard, Quarantine
from exporter.supervisor.reload import ConfigSource, Reload, allowed, is_disabled
from exporter.supervisor.sampled_cpus import SampledCpus
from exporter.supervisor.server_forked import Greet
from exporter.supervisor.service_manager import ServiceManager
from exporter.supervisor.web_config import WebConfigSource, WebConfigWatch
from exporter.systemd import notify, take_fds

RecordFunction = Callable[[Iterable[ManagedProgram]], None]
ServerFunction = Callable[[selectors.BaseSelector, Greet], ServerLink]


class Part(Protocol):
    """A part of the loop: `work` does what is to be done by now, `due` says when there is more to do."""

    def due(self) -> list[float]:
        """Return times of the monotonic clock; none where only a descriptor of the selector can bring work."""

    def work(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisorOptions:
    """The configuration, functions and options of a supervisor.

    config    programs and limits
    load      runs in a forked child, and loads one program
    server    makes what starts the server, or waits for it; calls back for each that has come
    source    where the configuration is read again; None for nowhere
    web       where the web configuration is read again; None without one
    overhead  when run times of programs are measured
    guard     writes programs down before they are attached, so that none crashes the host twice; None for no record
    record    runs in a forked child at the end, before anything is detached; None for no recording
    compare   says how programs in the service manager's store differ from what would be loaded; None: no store
    """

    config: Config
    load: LoadFunction
    server: ServerFunction
    source: ConfigSource | None = None
    web: WebConfigSource | None = None
    overhead: OverheadOptions = OverheadOptions()  # noqa: RUF009 - frozen
    guard: CrashGuard | None = None
    record: RecordFunction | None = None
    compare: Compare | None = None


class Supervisor:
    """Owns the children and the descriptors from start to end."""

    def __init__(self, options: SupervisorOptions) -> None:
        self._options = options
        self._selector = selectors.DefaultSelector()
        config, source = options.config, options.source
        listed = [ManagedProgram.of(spec) for spec in allowed(config.programs, bool(source and is_disabled(source)))]
        store = None
        if options.compare is not None:
            store = FdStore(take_fds(), listed, config.limits.label_length)
            store.adopt(options.compare)
        self._server = options.server(self._selector, self._greet)
        self._programs = ManagedPrograms(listed, config.limits, options.load, self._selector, self._server, store)
        self._programs.begin()
        service = ServiceManager(self._programs)
        self._quarantine = None if options.guard is None else Quarantine(options.guard, self._programs)
        self._programs.quarantine = self._quarantine
        self._overhead = Overhead(options.overhead, self._programs, self._send_measurements)
        self._reload = None if source is None else Reload(source, self._selector, self._programs, service)
        self._web = None if options.web is None else WebConfigWatch(options.web, self._selector, self._server.send)
        parts: tuple[Part | None, ...] = (
            *(self._server, self._programs.loaders, SampledCpus(self._programs), Lifetimes(self._programs)),
            *(self._quarantine, self._overhead, self._reload, self._web, store, service),
        )
        self._parts = [part for part in parts if part is not None]
        self._wakeup, self._wakeup_write = socket.socketpair()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT and return the exit code. Everything is detached then."""
        self._catch_signals()
        try:
            while not self._tick():
                pass
        finally:
            self._end()
        return 0

    # The loop

    def _tick(self) -> bool:
        """Run one round. Return True when it is time to end."""
        for part in self._parts:
            part.work()
        ending = False
        for key, _ in self._selector.select(self._until_next()):
            ending = key.data() or ending
        return ending

    def _until_next(self) -> float | None:
        times = [moment for part in self._parts for moment in part.due()]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _catch_signals(self) -> None:
        for sock in (self._wakeup, self._wakeup_write):
            sock.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self) -> bool:
        ending = False
        for number in self._wakeup.recv(64):
            if number in (signal.SIGTERM, signal.SIGINT):
                ending = True
            elif number == signal.SIGHUP and self._reload is not None:
                self._reload.ask()
            elif number == signal.SIGUSR1:
                self._write_record()
        return ending

    # The server

    def _greet(self, restarts: int) -> None:
        """Send everything to a new server."""
        opened = open_for_root()
        hello = Hello(
            release=__version__,
            restarts=restarts,
            programs=self._programs.names(),
            files=tuple(opened),
            limits=self._programs.limits,
            web=None if self._web is None else self._web.state(),
        )
        self._server.send(hello, list(opened.values()))
        messages.close(list(opened.values()))
        if self._reload is not None:
            self._reload.send_state()
        self._send_measurements(self._overhead.times)
        for managed in self._programs:
            self._programs.send(managed)
        if restarts and self._server.announces_itself and self._reload is not None:
            self._reload.ask()  # who restarts the unit that has the exporter's name wants the files as they are now

    def _send_measurements(self, times: RunTimes) -> None:
        self._server.send(Measurements(times, None if self._quarantine is None else self._quarantine.armed))

    # The end

    def _write_record(self) -> None:
        record = self._options.record
        if record is None:
            log.get().warning("SIGUSR1 ignored: started without --record, there is no directory to write to")
            return
        outcome = isolated.run_isolated(lambda _: record(self._programs) or "")
        if outcome.status:
            log.get().error("record was not written", error=outcome.last_words)

    def _end(self) -> None:
        started = time.monotonic()
        notify("STOPPING=1")
        self._programs.loaders.end()
        if self._web is not None:
            self._web.end()
        self._overhead.end()
        if self._reload is not None:
            self._reload.end()
        if self._options.record is not None:
            self._write_record()
        self._server.ask_to_end()
        for managed in self._programs:
            managed.detach()
        if self._quarantine is not None:
            self._quarantine.end()
        self._server.end()
        self._selector.close()
        what = "everything is detached" if self._programs.store is None else "the service manager has what is attached"
        log.get().info(f"stopped: {what}", seconds=round(time.monotonic() - started, 2))
