"""The privileged role: has programs loaded, keeps every descriptor, and starts a server that died again.

No network traffic, no numpy and no LLVM here. One thread, one loop; loaders and the server are forked from it, so that
they share its memory, and die with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Protocol

from exporter import __version__, log
from exporter.binding import totals_layout
from exporter.binding.bind import BindingError
from exporter.decoders.names import open_for_root
from exporter.ipc import isolated
from exporter.ipc.protocol import ConfigState, Hello, Measurements, ProgramList, ToServer
from exporter.ipc.run_times import RunTimes
from exporter.kernel import cpus, memfd
from exporter.program import Reason, State
from exporter.spec import Config, ProgramSpec
from exporter.supervisor.adoption import IsUnchanged
from exporter.supervisor.fd_store import FdStore
from exporter.supervisor.lifetimes import Lifetimes
from exporter.supervisor.loaders import Loaders, LoadFunction
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.overhead import Overhead, OverheadOptions
from exporter.supervisor.quarantine import CrashGuard, Quarantine
from exporter.supervisor.reload import ConfigSource, Reload, allowed, is_disabled
from exporter.supervisor.sampled_cpus import SampledCpus
from exporter.supervisor.server_forked import Greet
from exporter.supervisor.watchdog import Watchdog
from exporter.supervisor.web_config import WebConfigSource, WebConfigWatch
from exporter.systemd import notify, take_fds

DEFAULTS = Config()

RecordFunction = Callable[[Sequence[ManagedProgram]], None]


class Part(Protocol):
    """What the loop looks after: `work` does what is to be done by now, `due` says when there is more to do."""

    def due(self) -> list[float]:
        """Times of the monotonic clock; none where only a descriptor of the selector can bring work."""

    def work(self) -> None: ...


class ServerLink(Part, Protocol):
    """The server as the supervisor sees it: ServerChild or ServerConnection.

    announces_itself  whether the service manager hears of the programs from the server, a unit of its own
    """

    announces_itself: bool

    @property
    def ready(self) -> bool:
        """Whether the service may be said to be up, once all programs were tried."""

    def send(self, message: ToServer, fds: Sequence[int] = ()) -> None:
        """Send a message; nothing happens where no server is, because the next one is told everything."""

    def ask_to_end(self) -> None: ...

    def end(self) -> None:
        """Wait a little for a server that was asked to end, and end it."""


ServerFunction = Callable[[selectors.BaseSelector, Greet], ServerLink]


class Supervisor:
    """Owns the children and the descriptors from start to end.

    load     runs in a forked child: one program of the configuration into its document and descriptors
    server   makes what starts the server, or waits for it; calls back for each that has come
    config   of its limits, what the server has to know: label_length and series
    record   runs in a forked child at the end, before anything is detached; None for no recording
    source   where the configuration is read again on SIGHUP; None for nowhere
    limit    tells `load` of other limits
    guard    writes programs down before they are attached, so that none crashes the host twice; None for no such
    web      the file of --web.config.file; None for none
    overhead  when run times of programs are taken, and budgets watched
    adopt    says which programs in the service manager's store are those that would be loaded; None for no such store
    """

    def __init__(
        self,
        specs: Sequence[ProgramSpec],
        *,
        load: LoadFunction,
        server: ServerFunction,
        config: Config = DEFAULTS,
        record: RecordFunction | None = None,
        source: ConfigSource | None = None,
        limit: Callable[[Config], None] = lambda _: None,
        guard: CrashGuard | None = None,
        web: WebConfigSource | None = None,
        overhead: OverheadOptions = OverheadOptions(),  # noqa: B008 - frozen
        adopt: IsUnchanged | None = None,
    ) -> None:
        self._config = config
        self._log = log.get()
        self._record = record
        self._selector = selectors.DefaultSelector()
        self._entries = [ManagedProgram.of(spec) for spec in allowed(specs, source is not None and is_disabled(source))]
        self._loaders = Loaders(load, self._selector, self._on_loaded, self._admit)
        self._store = None if adopt is None else FdStore(take_fds(), self._entries, config.limits.label_length)
        if self._store is not None and adopt is not None:
            self._store.adopt(adopt)
        for entry in self._entries:
            if entry.program.state is State.LOADING:
                self._loaders.add(entry)
            elif entry.program.state is State.RUNNING and entry.totals is None:
                self.new_totals(entry)  # its metrics are others than those that it was stored with
        self._server = server(self._selector, self._greet)
        self._parts: tuple[Part, ...] = (
            self._server,
            self._loaders,
            SampledCpus(self._entries, self._tell),
            Lifetimes(self._entries, self._end_of_life),
            Watchdog(),
        )
        self._quarantine: Quarantine | None = None
        if guard is not None:
            again, loading = self.load_again, self._loaders.has
            self._quarantine = Quarantine(guard, entries=self._entries, loading=loading, again=again)
            self._parts = (*self._parts, self._quarantine)
        self._overhead = Overhead(overhead, self._entries, self, self._tell_run_times)
        self._parts = (*self._parts, self._overhead)
        self._limit = limit
        self._reload = None if source is None else Reload(source, self._selector, self._loaders, self)
        if self._reload is not None:
            self._parts = (*self._parts, self._reload)
        self._web = None if web is None else WebConfigWatch(web, self._selector, self._server.send)
        if self._web is not None:
            self._parts = (*self._parts, self._web)
        if self._store is not None:
            self._parts = (*self._parts, self._store)
        self._announced = False
        self._wakeup, self._wakeup_write = socket.socketpair()

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code. Everything is detached when it returns."""
        self._catch_signals()
        try:
            while not self._tick():
                pass
        finally:
            self._end()
        return 0

    # The loop

    def _tick(self) -> bool:
        """One round; True when it is time to end."""
        for part in self._parts:
            part.work()
        self._announce()
        ending = False
        for key, _ in self._selector.select(self._until_next()):
            ending = key.data() or ending
        return ending

    def _until_next(self) -> float | None:
        times = [time for part in self._parts for time in part.due()]
        return max(0.0, min(times) - monotonic()) if times else None

    def _announce(self) -> None:
        """Tell the service manager once: every program was tried and the server answers."""
        loading = any(e.program.state is State.LOADING for e in self._entries)
        if self._announced or (loading and not self._server.announces_itself) or not self._server.ready:
            return
        self._announced = True
        running = sum(e.program.state is State.RUNNING for e in self._entries)
        notify("READY=1", f"STATUS={running} of {len(self._entries)} programs running")
        self._log.info("ready", running=running, programs=len(self._entries))

    # Signals

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

    # Programs

    def _on_loaded(self, entry: ManagedProgram) -> None:
        if entry.program.state is State.RUNNING:
            entry.since = monotonic()
        if entry in self._entries:  # else it is for the exchange
            if entry.program.state is State.RUNNING:
                self.new_totals(entry)
            self._say(entry)
            self._tell(entry)

    def _tell_run_times(self, times: RunTimes) -> None:
        armed = None if self._quarantine is None else self._quarantine.armed
        self._server.send(Measurements(times, armed))

    def _admit(self, entries: list[ManagedProgram]) -> list[ManagedProgram]:
        """Those that may be loaded; of the others it is said why not."""
        if self._quarantine is None:
            return entries
        admitted = self._quarantine.admit(entries)
        for entry in [e for e in entries if e not in admitted and e in self._entries]:
            self._say(entry)
            self._tell(entry)
        return admitted

    def stop_program(self, entry: ManagedProgram, state: State, reason: Reason, text: str) -> None:
        """Detach a program, and say what it is from now on, and why."""
        self._loaders.drop(entry)
        self._let_go([entry])
        entry.detach()
        entry.program = replace(entry.program, state=state, reason=reason, text=text, maps=(), attachments=())
        self._say(entry)
        self._tell(entry)

    def _end_of_life(self, entry: ManagedProgram) -> None:
        text = f"{entry.spec.name}: its lifetime of {entry.spec.lifetime:.0f} s is over (change its entry and reload)"
        self.stop_program(entry, State.ENDED, Reason.NONE, text)

    def load_again(self, entry: ManagedProgram) -> None:
        """Load a program that was stopped."""
        entry.program = ManagedProgram.of(entry.spec).program
        self._loaders.add(entry)
        self._tell(entry)

    @property
    def entries(self) -> Sequence[ManagedProgram]:
        """The programs, in the order of the configuration."""
        return self._entries

    @property
    def announced(self) -> bool:
        return self._announced

    def exchange(self, entries: Sequence[ManagedProgram], news: Sequence[ManagedProgram] = ()) -> None:
        """These are the programs from now on. The server takes all `news` of them at once; what is not among them is
        detached after that. Everybody who looks after programs has this list."""
        gone = [entry for entry in self._entries if entry not in entries]
        for entry in [entry for entry in entries if entry not in self._entries]:
            self._say(entry)
        self._entries[:] = entries
        self._server.send(ProgramList(tuple(entry.spec.name for entry in entries), len(news)))
        for entry in news:
            self._tell(entry)
        self._let_go(gone)
        for entry in gone:
            self._loaders.drop(entry)
            entry.detach()

    def _let_go(self, entries: Sequence[ManagedProgram]) -> None:
        if self._store is not None:
            self._store.let_go(entries)

    def new_totals(self, entry: ManagedProgram) -> None:
        """Give a program another memory of its totals, which begin at what its maps hold."""
        entry.forget_totals()
        entry.totals = self._memory_of_totals(entry)

    def limit(self, config: Config) -> None:
        """Limits for what is loaded and for new series from now on."""
        self._config = config
        if self._store is not None:
            self._store.label_length = config.limits.label_length
        self._limit(config)
        self.reloaded()

    def reloaded(self) -> None:
        """Tell the server what there is to say of the configuration, and its limits."""
        if self._reload is not None:
            self._server.send(ConfigState(self._reload.report, self._config.limits))

    def _memory_of_totals(self, entry: ManagedProgram) -> int | None:
        try:
            length = self._config.limits.label_length
            plan = totals_layout.of_program(entry.program, entry.spec, cpus.possible(), length)
            return memfd.of_size("totals", plan.size)
        except (BindingError, OSError) as error:
            self._log.warning("totals will not outlive a server", program=entry.spec.name, why=str(error))
            return None

    def _say(self, entry: ManagedProgram) -> None:
        """One line of what became of a program."""
        p = entry.program
        if p.state is State.RUNNING:
            attached = sum(a.attached for a in p.attachments)
            how = "from cache" if p.from_cache else f"compiled in {p.compile_seconds:.2f} s"
            points = f"{attached} of {len(p.attachments)}"
            self._log.info("program running", program=p.name, variant=p.variant or "-", attached=points, how=how)
            for a in p.attachments:
                if not a.attached:
                    self._log.warning("optional attach point is absent", program=p.name, why=a.text)
        elif p.state in (State.SKIPPED, State.DISABLED, State.ENDED):
            self._log.info(f"program {p.state}", program=p.name, reason=str(p.reason), why=p.text)
        else:
            self._log.error(f"program {p.state}", program=p.name, reason=str(p.reason), why=p.text)

    # The server

    def _greet(self, restarts: int) -> None:
        opened = open_for_root()
        hello = Hello(
            release=__version__,
            restarts=restarts,
            programs=tuple(e.spec.name for e in self._entries),
            files=tuple(opened),
            limits=self._config.limits,
            web=None if self._web is None else self._web.state(),
        )
        self._server.send(hello, list(opened.values()))
        for fd in opened.values():
            os.close(fd)
        self.reloaded()
        self._tell_run_times(self._overhead.times)
        for entry in self._entries:
            self._tell(entry)
        if restarts and self._server.announces_itself and self._reload is not None:
            self._reload.ask()  # whoever restarts the unit that has the exporter's name wants the files as they are now

    def _tell(self, entry: ManagedProgram) -> None:
        if self._store is not None:
            self._store.work()  # first: what a scrape has shown must not be lost with this process
        if entry in self._entries:
            self._server.send(*entry.for_server())

    # The end

    def _write_record(self) -> None:
        record = self._record
        if record is None:
            self._log.warning("SIGUSR1 ignored: started without --record, there is no directory to write to")
            return
        outcome = isolated.run_isolated(lambda _: record(self._entries) or "")
        if outcome.status:
            self._log.error("record was not written", error=outcome.last_words)

    def _end(self) -> None:
        started = monotonic()
        notify("STOPPING=1")
        self._loaders.end()
        if self._web is not None:
            self._web.end()
        self._overhead.end()
        if self._reload is not None:
            self._reload.end()
        if self._record is not None:
            self._write_record()
        self._server.ask_to_end()
        for entry in self._entries:
            entry.detach()
        if self._quarantine is not None:
            self._quarantine.end()
        self._server.end()
        self._selector.close()
        what = "everything is detached" if self._store is None else "the service manager has what is attached"
        self._log.info(f"stopped: {what}", seconds=round(monotonic() - started, 2))
