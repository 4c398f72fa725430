"""The privileged role: starts a loader per program, keeps every descriptor, and starts a server that died again.

No network traffic, no numpy and no LLVM here. One thread, one loop; loaders and the server are forked from it, so that
they share its memory, and die with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from exporter import handover, log, messages, totals
from exporter.binding import BindingError
from exporter.config import model
from exporter.kernel import cpus, memory
from exporter.kernel.features import Kernel
from exporter.loading import hotplug
from exporter.notify import notify
from exporter.program import Descriptors, Program, Reason, State, pair, to_json

MAX_LOADERS = 4
LOADER_MEMORY = 300 << 20  # bytes; bcc with LLVM peaks at some 160 MB, and the host wants the rest
LOADER_DEADLINE = 300.0  # seconds; 12 s were seen under full emulation
SERVER_SETTLED = 10.0  # seconds after which a server's death is no longer held against the next one
SERVER_RETRY = 1.0  # seconds until another try where the host has no process or descriptor left
SERVER_GRACE = 0.5  # seconds between SIGTERM and SIGKILL at the end
SLOW_CLOSE = 1.0  # seconds; the kernel detaches some kinds one after another
SEND_TIMEOUT = 10.0  # seconds that a server may let a message wait before it is taken for hung

ServeFunction = Callable[[socket.socket], NoReturn]
RecordFunction = Callable[[Sequence["Entry"]], None]


@dataclass(slots=True)
class Entry:
    """One program of the configuration, what became of it, and the descriptors that keep it alive. `totals`: of the
    memory that its totals outlive a server in."""

    spec: model.Program
    program: Program
    fds: Descriptors = field(default_factory=Descriptors)
    totals: int | None = None


@dataclass(slots=True)
class _Loader:
    entry: Entry
    pid: int
    pidfd: int
    sock: socket.socket
    deadline: float


@dataclass(slots=True)
class _Server:
    pid: int
    pidfd: int
    sock: socket.socket
    started: float
    ready: bool = False


class Supervisor:
    """Owns the children and the descriptors from start to end.

    load     runs in a forked child: one program of the configuration into its document and descriptors
    serve    runs in a forked child: the server; never returns
    keep     descriptors that the server inherits (its listening sockets)
    label_length  bytes of a label value (limits.label_length)
    record   runs in a forked child at the end, before anything is detached; None for no recording
    """

    def __init__(
        self,
        specs: Sequence[model.Program],
        *,
        load: handover.LoadFunction,
        serve: ServeFunction,
        keep: Sequence[int] = (),
        label_length: int = model.Config().label_length,
        record: RecordFunction | None = None,
    ) -> None:
        self._load = load
        self._serve = serve
        self._keep = tuple(keep)
        self._label_length = label_length
        self._record = record
        self._entries = [Entry(s, Program(s.name, State.LOADING if s.enabled else State.DISABLED)) for s in specs]
        self._queue = [e for e in self._entries if e.program.state is State.LOADING]
        self._loaders: list[_Loader] = []
        self._server: _Server | None = None
        self._server_starts = 0
        self._server_failures = 0
        self._server_due: float | None = 0.0
        self._announced = False
        self._watches: dict[str, hotplug.Watch] = {}  # of programs that sample every CPU
        self._look_due = 0.0
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_write = socket.socketpair()
        self._log = log.get()

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
        self._start_due()
        ending = False
        for key, _ in self._selector.select(self._until_next()):
            ending = key.data() or ending
        self._kill_overdue_loaders()
        self._look_for_cpus()
        self._announce()
        return ending

    def _start_due(self) -> None:
        if self._server is None and self._server_due is not None and time.monotonic() >= self._server_due:
            try:
                self._start_server()
            except OSError as error:  # no process or descriptor to be had: what is attached goes on counting
                self._log.error("server cannot be started: trying again", why=str(error), after=f"{SERVER_RETRY:.0f} s")
                self._server_due = time.monotonic() + SERVER_RETRY
        while self._queue and len(self._loaders) < self._allowed_loaders():
            entry = self._queue.pop(0)
            try:
                self._start_loader(entry)
            except OSError as error:
                text = f"{entry.spec.name}: load: the loader cannot be started: {error.strerror or error}"
                entry.program = handover.failed(entry.spec, Reason.INTERNAL, text)
                self._report(entry)

    def _until_next(self) -> float | None:
        times = [loader.deadline for loader in self._loaders]
        if self._server is None and self._server_due is not None:
            times.append(self._server_due)
        if self._watches:
            times.append(self._look_due)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _allowed_loaders(self) -> int:
        """At least one, so that a host short of memory still gets its programs, one after another."""
        return max(1, min(MAX_LOADERS, len(self._loaders) + memory.available() // LOADER_MEMORY))

    def _announce(self) -> None:
        """Tell the service manager once: every program was tried and the server answers."""
        loading = sum(e.program.state is State.LOADING for e in self._entries)
        if self._announced or loading or self._server is None or not self._server.ready:
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
            elif number == signal.SIGHUP:
                self._log.warning("SIGHUP ignored: this version does not reload its configuration; restart it instead")
            elif number == signal.SIGUSR1:
                self._write_record()
        return ending

    # Loaders

    def _start_loader(self, entry: Entry) -> None:
        ours, theirs = messages.pair()
        pid = os.fork()
        if pid == 0:
            self._become_child(theirs.fileno())
            handover.load_and_send(self._load, entry.spec, theirs)
        theirs.close()
        self._log.info("loading", program=entry.spec.name)
        loader = _Loader(entry, pid, os.pidfd_open(pid), ours, time.monotonic() + LOADER_DEADLINE)
        self._loaders.append(loader)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_loader(loader))

    def _on_loader(self, loader: _Loader) -> bool:
        """The loader's message came, or its end of the socket closed: either way it is done."""
        loader.sock.settimeout(SEND_TIMEOUT)
        entry, loaded, nonsense = loader.entry, None, ""
        try:
            message = messages.receive(loader.sock)
            loaded = handover.unpack(*message) if message else None
        except (messages.ProtocolError, OSError) as error:
            nonsense = f"{entry.spec.name}: load: the loader's message was not understood: {error} (please report it)"
        if loaded is None:
            os.kill(loader.pid, signal.SIGKILL)
        status = self._reap_loader(loader)
        if loaded is not None:
            entry.program, entry.fds = loaded
            entry.totals = self._memory_of_totals(entry)
        elif nonsense:
            entry.program = handover.failed(entry.spec, Reason.INTERNAL, nonsense)
        else:
            entry.program = handover.failed_without_a_word(entry.spec, status)
        self._report(entry)
        return False

    def _memory_of_totals(self, entry: Entry) -> int | None:
        if entry.program.state is not State.RUNNING:
            return None
        try:
            plan = totals.of_program(entry.program, entry.spec, cpus.possible(), self._label_length)
            return totals.create(plan.size)
        except (BindingError, OSError) as error:
            self._log.warning("totals will not outlive a server", program=entry.spec.name, why=str(error))
            return None

    def _reap_loader(self, loader: _Loader) -> int:
        self._selector.unregister(loader.sock)
        loader.sock.close()
        os.close(loader.pidfd)
        self._loaders.remove(loader)
        return os.waitstatus_to_exitcode(os.waitpid(loader.pid, 0)[1])

    def _kill_overdue_loaders(self) -> None:
        for loader in [x for x in self._loaders if time.monotonic() >= x.deadline]:
            os.kill(loader.pid, signal.SIGKILL)
            self._reap_loader(loader)
            text = f"{loader.entry.spec.name}: load: no answer within {LOADER_DEADLINE:.0f} s (host overloaded?)"
            loader.entry.program = handover.failed(loader.entry.spec, Reason.TIMEOUT, text)
            self._report(loader.entry)

    def _look_for_cpus(self) -> None:
        """Give the programs that sample every CPU the ones that came online since."""
        if not self._watches or time.monotonic() < self._look_due:
            return
        self._look_due = time.monotonic() + hotplug.INTERVAL
        for entry in self._entries:
            watch = self._watches.get(entry.spec.name)
            looked = watch.look(entry.program, entry.fds) if watch else entry.program
            if looked is not entry.program:
                entry.program = looked
                self._tell_server(entry)

    def _report(self, entry: Entry) -> None:
        """One line for the person, one message for the server."""
        p = entry.program
        if hotplug.needs_watch(p):
            self._watches[p.name] = hotplug.Watch(entry.spec, Kernel())
        if p.state is State.RUNNING:
            attached = sum(a.attached for a in p.attachments)
            how = "from cache" if p.from_cache else f"compiled in {p.compile_seconds:.2f} s"
            points = f"{attached} of {len(p.attachments)}"
            self._log.info("program running", program=p.name, variant=p.variant or "-", attached=points, how=how)
            for a in p.attachments:
                if not a.attached:
                    self._log.warning("optional attach point is absent", program=p.name, why=a.text)
        elif p.state is State.SKIPPED:
            self._log.info("program skipped", program=p.name, reason=str(p.reason), why=p.text)
        else:
            self._log.error("program failed", program=p.name, reason=str(p.reason), why=p.text)
        self._tell_server(entry)

    # The server

    def _start_server(self) -> None:
        ours, theirs = messages.pair()
        pid = os.fork()
        if pid == 0:
            self._become_child(theirs.fileno(), *self._keep)
            self._serve(theirs)
        theirs.close()
        ours.settimeout(SEND_TIMEOUT)
        server = _Server(pid, os.pidfd_open(pid), ours, time.monotonic())
        self._server, self._server_due = server, None
        self._selector.register(server.pidfd, selectors.EVENT_READ, lambda: self._on_server_end(server))
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_server_word(server))
        self._send_to_server({"programs": [e.spec.name for e in self._entries], "restarts": self._server_starts})
        self._server_starts += 1
        for entry in self._entries:
            self._tell_server(entry)

    def _tell_server(self, entry: Entry) -> None:
        """A program's document, its configuration, its maps and the memory of its totals; never a program or a link.
        Maps are read-only but those whose entries the server itself has to delete."""
        names = list(entry.fds.readonly)
        writable = {name for name, options in entry.spec.maps.items() if options.ttl}
        writable.update(*(pair(name) for name, options in entry.spec.maps.items() if options.drain))
        given = {**entry.fds.readonly, **{name: fd for name, fd in entry.fds.maps.items() if name in writable}}
        memory = [] if entry.totals is None else [entry.totals]
        document = {
            **to_json(entry.program),
            "spec": entry.spec.model_dump(mode="json"),
            "maps": names,
            "totals": len(memory),
        }
        self._send_to_server(document, [*(given[name] for name in names), *memory])

    def _send_to_server(self, document: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if self._server is None:
            return
        try:
            messages.send(self._server.sock, document, fds)
        except OSError as error:
            self._log.warning("the server does not take messages: starting another one", error=str(error))
            os.kill(self._server.pid, signal.SIGKILL)  # its pidfd wakes the loop

    def _on_server_word(self, server: _Server) -> bool:
        """Anything from the server means that it serves; what it says is not read, because it is not trusted."""
        if server is not self._server:
            return False  # it ended in this round of the loop
        try:
            word = server.sock.recv(16)
        except OSError:
            word = b""
        server.ready = server.ready or bool(word)
        if not word:
            self._selector.unregister(server.sock)
        return False

    def _on_server_end(self, server: _Server) -> bool:
        status = os.waitstatus_to_exitcode(os.waitpid(server.pid, 0)[1])
        self._forget_server(server)
        lived = time.monotonic() - server.started
        self._server_failures = 0 if lived > SERVER_SETTLED else self._server_failures + 1
        pause = min(30.0, 0.1 * 2 ** (self._server_failures - 2)) if self._server_failures > 1 else 0.0
        self._server_due = time.monotonic() + pause
        how = f"by signal {-status}" if status < 0 else f"with exit code {status}"
        self._log.error(
            "server ended " + how + ": starting it again, the kernel goes on counting", after=f"{lived:.1f} s"
        )
        return False

    def _forget_server(self, server: _Server) -> None:
        self._selector.unregister(server.pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(server.sock)
        server.sock.close()
        os.close(server.pidfd)
        self._server = None

    # Children and the end

    def _become_child(self, *keep: int) -> None:
        """In a forked child: default signals, and no descriptor of the supervisor's but the ones named.

        Close-on-exec does not help, there is no exec; a server with a program descriptor could read kernel memory.
        """
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        # A terminal sends these to the whole group: they are the supervisor's matter.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        last = 2
        for fd in sorted(keep):
            os.closerange(last + 1, fd)
            last = fd
        os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))

    def _write_record(self) -> None:
        if self._record is None:
            self._log.warning("SIGUSR1 ignored: started without --record, there is no directory to write to")
            return
        pid = os.fork()
        if pid == 0:
            try:
                self._record(self._entries)
                os._exit(0)
            except BaseException as error:  # noqa: BLE001 - a child's last words, whatever went wrong
                self._log.error("record was not written", error=f"{type(error).__name__}: {error}")
                os._exit(1)
        os.waitpid(pid, 0)

    def _end(self) -> None:
        started = time.monotonic()
        notify("STOPPING=1")
        for loader in list(self._loaders):
            os.kill(loader.pid, signal.SIGKILL)
            self._reap_loader(loader)
        if self._record is not None:
            self._write_record()
        server = self._server
        if server is not None:
            os.kill(server.pid, signal.SIGTERM)
        for entry in self._entries:
            self._detach(entry)
        if server is not None:
            with selectors.DefaultSelector() as wait:
                wait.register(server.pidfd, selectors.EVENT_READ)
                if not wait.select(SERVER_GRACE):
                    os.kill(server.pid, signal.SIGKILL)
            os.waitpid(server.pid, 0)
            self._forget_server(server)
        self._selector.close()
        self._log.info("stopped: everything is detached", seconds=round(time.monotonic() - started, 2))

    def _detach(self, entry: Entry) -> None:
        began, links = time.monotonic(), len(entry.fds.links)
        entry.fds.close()
        if entry.totals is not None:
            os.close(entry.totals)
            entry.totals = None
        seconds = round(time.monotonic() - began, 1)
        if seconds >= SLOW_CLOSE:
            why = "the kernel detaches them one after another: see docs/attach.md"
            self._log.warning("detaching took long", program=entry.spec.name, links=links, seconds=seconds, why=why)
