"""The server as a child of the supervisor, started again when it dies."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from exporter import log
from exporter.ipc import protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import ToServer
from exporter.supervisor import children
from exporter.supervisor.children import Child

ServeFunction = Callable[[socket.socket], NoReturn]
Greet = Callable[[int], None]  # sends everything to a new server; how many servers there were before it

SETTLED = 10.0  # seconds of life after which the next server starts without a pause
RETRY = 1.0  # seconds until another try where the host has no process or descriptor left
GRACE = 0.5  # seconds between SIGTERM and SIGKILL at the end
SEND_TIMEOUT = 10.0  # seconds for a message to be received; after that the server is taken for hung


class ServerChild:
    """Keeps one server running.

    serve    runs in a forked child: the server; never returns
    keep     descriptors that it inherits (its listening sockets)
    greet    is called with how many servers there were before, for each that was started: sends it everything
    """

    announces_itself = False

    def __init__(
        self,
        serve: ServeFunction,
        selector: selectors.BaseSelector,
        greet: Greet,
        keep: Sequence[int] = (),
    ) -> None:
        self._serve = serve
        self._selector = selector
        self._greet = greet
        self._keep = tuple(keep)
        self._child: Child | None = None
        self._started = 0.0
        self._starts = 0
        self._failures = 0
        self._due = 0.0
        self.ready = False

    @classmethod
    def of(
        cls, serve: ServeFunction, keep: Sequence[int] = ()
    ) -> Callable[[selectors.BaseSelector, Greet], ServerChild]:
        """Return what a Supervisor makes its server with."""
        return lambda selector, greet: cls(serve, selector, greet, keep)

    def due(self) -> list[float]:
        """Return when `work` has to be called at the latest, by the monotonic clock."""
        return [] if self._child else [self._due]

    def work(self) -> None:
        """Start a server where there is none and it is time."""
        if self._child or time.monotonic() < self._due:
            return
        try:
            self._child = child = children.fork(self._serve, self._keep)
        except OSError as error:  # no process or descriptor to be had: what is attached goes on counting
            log.get().error("server cannot be started: trying again", error=str(error), after=f"{RETRY:.0f} s")
            self._due = time.monotonic() + RETRY
            return
        child.sock.settimeout(SEND_TIMEOUT)
        self._started, self.ready = time.monotonic(), False
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_end(child))
        self._selector.register(child.sock, selectors.EVENT_READ, lambda: self._on_message(child))
        self._starts += 1
        self._greet(self._starts - 1)

    def send(self, message: ToServer, fds: Sequence[int] = ()) -> None:
        """Send a message. Nothing happens where no server runs: the next one gets all messages."""
        if self._child is None:
            return
        try:
            protocol.send(self._child.sock, message, fds)
        except OSError as error:
            log.get().warning("the server does not receive messages: starting another one", error=str(error))
            self._child.kill()  # its pidfd wakes the loop

    def ask_to_end(self) -> None:
        if self._child:
            self._child.kill(signal.SIGTERM)

    def end(self) -> None:
        """Wait a little for a server that was asked to end, and end it."""
        child = self._child
        if child is None:
            return
        with selectors.DefaultSelector() as wait:
            wait.register(child.pidfd, selectors.EVENT_READ)
            if not wait.select(GRACE):
                child.kill()
        self._forget(child)

    def _on_message(self, child: Child) -> bool:
        """The server is ready, or ended."""
        if child is not self._child:
            return False  # it ended in this round of the loop
        try:
            self.ready = protocol.receive_ready(child.sock) is not None
        except OSError:
            self.ready = False
        except ProtocolError as error:
            log.get().error("the server's message was not understood: starting another one", error=str(error))
            child.kill()
        self._selector.unregister(child.sock)  # it sends no more, and its pidfd says when it ends
        return False

    def _on_end(self, child: Child) -> bool:
        status = self._forget(child)
        lived = time.monotonic() - self._started
        self._failures = 0 if lived > SETTLED else self._failures + 1
        pause = min(30.0, 0.1 * 2 ** (self._failures - 2)) if self._failures > 1 else 0.0
        self._due = time.monotonic() + pause
        how = f"by signal {-status}" if status < 0 else f"with exit code {status}"
        log.get().error(
            "server ended " + how + ": starting it again, the kernel goes on counting", after=f"{lived:.1f} s"
        )
        return False

    def _forget(self, child: Child) -> int:
        self._selector.unregister(child.pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.sock)
        self._child, self.ready = None, False
        return child.reap()
