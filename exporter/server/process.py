"""The server's process: what it opens while it may, the rights that it drops, and the messages that it receives.

The process has listening sockets, descriptors of what only root may open, of maps and of the memory of totals. It
answers every route once (a module imported later could not be read from a private venv), drops its rights, and only
then talks to the network.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from exporter import log
from exporter.decoders import Names
from exporter.ipc import messages, protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import Hello, ToServer
from exporter.kernel import credentials, features
from exporter.server.registry import ProgramRegistry
from exporter.web import threads
from exporter.web.access import AccessControl
from exporter.web.application import Application, Request
from exporter.web.http_server import HttpServer

FINISH = 1.0 + threads.FINISH  # seconds for those who have connected when the server is asked to end
READS_WITHOUT_RIGHTS = (5, 19)  # the first kernel that lets a process without CAP_BPF read a map that it holds


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The server's part of the command line."""

    account: tuple[int, int]  # uid and gid
    metrics_path: str
    supervisor: int | None = None  # the process that it was forked from, and ends with


class Http:
    """The threads that answer requests."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve, name="http", daemon=True)

    def begin(self) -> None:
        """Start the threads, the first time it is called."""
        if self._thread.ident is None:
            self._thread.start()

    def finish(self) -> None:
        """Answer the clients that have connected; who connects from now on waits for the next server."""
        if self._thread.ident is not None:
            self._server.stop()
            self._thread.join(FINISH)


def serve(supervisor: socket.socket, listeners: Sequence[socket.socket], options: ServerOptions) -> NoReturn:
    """Serve until the supervisor ends. The caller is a forked child with no other descriptors than these."""
    received = protocol.receive(supervisor, Hello)
    if received is None:
        os._exit(0)
    programs, http = start(*received, listeners, options)
    follow(supervisor, programs, http.begin)
    os._exit(0)  # without a supervisor nothing is attached any more


def start(
    hello: Hello, fds: list[int], listeners: Sequence[socket.socket], options: ServerOptions
) -> tuple[ProgramRegistry, Http]:
    """Drop all rights, after the supervisor's first message. Owns `fds`.

    Return the programs, and the threads that answer requests for them once they have begun.
    """
    release = features.version(os.uname().release)
    uid, gid = options.account
    keep = frozenset() if release >= READS_WITHOUT_RIGHTS else frozenset({credentials.CAP_BPF})
    names = Names.of(dict(zip(hello.files, fds, strict=True)))
    programs = ProgramRegistry(names, hello.limits, unprivileged=not keep)
    programs.update(hello)
    application = Application(programs, options.metrics_path)
    _rehearse(application, options.metrics_path)
    gc.freeze()  # what was imported stays: looking through it again and again would hold up a scrape now and then
    http = HttpServer(listeners, application)
    programs.access_control = AccessControl(http)
    programs.access_control.apply(hello.web.settings if hello.web else None)
    credentials.drop_to(uid, gid, keep)
    if options.supervisor is not None:
        credentials.die_with_parent(signal.SIGKILL, options.supervisor)  # setuid(2) clears it: so after that
    rights = "CAP_BPF alone, which this kernel wants for reading maps" if keep else "no capability"
    log.get().info("server runs", pid=os.getpid(), uid=uid, rights=rights)
    return programs, Http(http)


def follow(
    supervisor: socket.socket,
    programs: ProgramRegistry,
    on_complete: Callable[[], None],
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Apply the supervisor's messages until its end.

    on_complete  is called when every program was described: a scrape before that would miss what is there
    on_ready     is called when all programs were tried
    """
    complete = ready = False
    while True:
        try:
            received = protocol.receive(supervisor, ToServer)
        except ProtocolError as error:  # a packet is a boundary: the next message starts with its own
            programs.refuse(error)
        except OSError:  # it was killed with a message of this process unread
            return
        else:
            if received is None:
                return
            message, fds = received
            programs.update(message, fds)
            if isinstance(message, Hello):
                messages.close(fds)  # this server has them open
        if programs.complete() and not complete:
            on_complete()
            complete = True
        if programs.ready() and not ready:
            with contextlib.suppress(OSError):
                protocol.send_ready(supervisor)  # not before: what comes after `systemctl start` may scrape at once
            on_ready()
            ready = True


def _rehearse(application: Application, metrics_path: str) -> None:
    """Answer every route once, in each format, so that whatever is imported on first use is imported now."""
    for path in ("/", metrics_path, "/-/ready"):
        for accept in ("", "application/openmetrics-text; version=1.0.0"):
            application(Request("GET", path, headers={"accept": accept, "accept-encoding": "gzip"}))
