"""The queue of programs to be loaded, and the children that load them, a few at a time."""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from exporter import log
from exporter.ipc import protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import Loaded
from exporter.kernel import memory
from exporter.program import Descriptors, Program, Reason
from exporter.spec import Limits, ProgramSpec
from exporter.supervisor import children
from exporter.supervisor.children import Child
from exporter.supervisor.managed_program import ManagedProgram, failed

LoadFunction = Callable[[ProgramSpec, Limits], tuple[Program, Descriptors]]

MAX_LOADERS = 4
LOADER_MEMORY = 300 << 20  # bytes; bcc with LLVM peaks at some 160 MB, and the host wants the rest
LOADER_DEADLINE = 300.0  # seconds; 12 s were seen under full emulation
ANSWER_TIMEOUT = 10.0  # seconds for receiving a message that has begun


@dataclass(slots=True, eq=False)
class _Loader:
    managed: ManagedProgram
    child: Child
    deadline: float


class Loaders:
    """Loads programs in the order in which they were added. A part of the supervisor's loop.

    load    runs in a forked child, and loads one program
    limits  of the programs that are loaded from now on
    done    is called with each program that was loaded or failed; `program` and `fds` say what became of it
    admit   is called with programs before they are loaded, and returns those that may be
    """

    def __init__(
        self,
        load: LoadFunction,
        limits: Limits,
        selector: selectors.BaseSelector,
        done: Callable[[ManagedProgram], None],
        admit: Callable[[list[ManagedProgram]], list[ManagedProgram]],
    ) -> None:
        self._load = load
        self.limits = limits
        self._selector = selector
        self._done = done
        self._admit = admit
        self._queue: list[ManagedProgram] = []
        self._unadmitted = False  # there are programs in it for which `admit` was not called
        self._running: list[_Loader] = []

    def add(self, managed: ManagedProgram) -> None:
        self._queue.append(managed)
        self._unadmitted = True

    def has(self, managed: ManagedProgram) -> bool:
        """Return whether it waits or is being loaded."""
        return managed in self._queue or any(loader.managed is managed for loader in self._running)

    def drop(self, managed: ManagedProgram) -> None:
        """Do not load this one; `done` is not called."""
        if managed in self._queue:
            self._queue.remove(managed)
        for loader in [x for x in self._running if x.managed is managed]:
            loader.child.kill()
            self._reap(loader)

    def work(self) -> None:
        """Start those that may start, and end those that take too long."""
        for loader in [x for x in self._running if time.monotonic() >= x.deadline]:
            loader.child.kill()
            self._reap(loader)
            text = f"{loader.managed.spec.name}: load: no answer within {LOADER_DEADLINE:.0f} s (host overloaded?)"
            loader.managed.program = failed(loader.managed.spec, Reason.TIMEOUT, text)
            self._done(loader.managed)
        if self._unadmitted:
            self._queue, self._unadmitted = self._admit(self._queue), False
        while self._queue and len(self._running) < self._allowed():
            self._start(self._queue.pop(0))

    def due(self) -> list[float]:
        """Return when `work` has to be called at the latest, by the monotonic clock."""
        return [*(loader.deadline for loader in self._running), *([0.0] if self._unadmitted else [])]

    def end(self) -> None:
        """Kill the loaders; what they attached goes with them."""
        self._queue.clear()
        for loader in list(self._running):
            loader.child.kill()
            self._reap(loader)

    def _allowed(self) -> int:
        """At least one, so that a host short of memory still gets its programs, one after another."""
        return max(1, min(MAX_LOADERS, len(self._running) + memory.available() // LOADER_MEMORY))

    def _start(self, managed: ManagedProgram) -> None:
        try:
            child = children.fork(lambda sock: self._load_and_send(managed.spec, sock))
        except OSError as error:
            text = f"{managed.spec.name}: load: the loader cannot be started: {error.strerror or error}"
            managed.program = failed(managed.spec, Reason.INTERNAL, text)
            self._done(managed)
            return
        log.get().info("loading", program=managed.spec.name)
        loader = _Loader(managed, child, time.monotonic() + LOADER_DEADLINE)
        self._running.append(loader)
        self._selector.register(child.sock, selectors.EVENT_READ, lambda: self._on_answer(loader))

    def _on_answer(self, loader: _Loader) -> bool:
        """The loader's message came, or its end of the socket closed: either way it is done."""
        if loader not in self._running:
            return False  # it was dropped in this round of the loop
        loader.child.sock.settimeout(ANSWER_TIMEOUT)
        managed, received, error = loader.managed, None, ""
        try:
            received = protocol.receive(loader.child.sock, Loaded)
        except (ProtocolError, OSError) as reason:
            error = f"{managed.spec.name}: load: the loader's message was not understood: {reason} (please report it)"
        if received is None:
            loader.child.kill()
        status = self._reap(loader)
        if received is not None:
            message, fds = received
            managed.program, managed.fds = message.program, message.with_numbers(fds)
        elif error:
            managed.program = failed(managed.spec, Reason.INTERNAL, error)
        else:
            managed.program = _failed_without_message(managed.spec, status)
        self._done(managed)
        return False

    def _reap(self, loader: _Loader) -> int:
        self._selector.unregister(loader.child.sock)
        self._running.remove(loader)
        return loader.child.reap()

    def _load_and_send(self, spec: ProgramSpec, sock: socket.socket) -> None:
        """Load a program and send what became of it. The loader's whole life: the supervisor keeps its descriptors."""
        try:
            protocol.send(sock, *Loaded.of(*self._load(spec, self.limits)))
        except BaseException as error:  # noqa: BLE001 - reported as data, the daemon goes on
            text = f"{spec.name}: load: internal error: {type(error).__name__}: {error} (please report it)"
            protocol.send(sock, Loaded(failed(spec, Reason.INTERNAL, text)))


def _failed_without_message(spec: ProgramSpec, status: int) -> Program:
    """Return the program of a loader that ended with this exit code, or by signal -`status`, and sent nothing."""
    if status >= 0:
        text = f"{spec.name}: load: the loader ended with exit code {status} and no word (please report it)"
        return failed(spec, Reason.INTERNAL, text)
    hint = "out of memory? see the kernel's log" if status == -signal.SIGKILL else "see the kernel's log"
    text = f"{spec.name}: load: the loader was killed by {signal.Signals(-status).name} ({hint})"
    return failed(spec, Reason.KILLED, text)
