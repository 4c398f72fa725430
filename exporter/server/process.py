"""The server's process: what it opens while it may, the rights that it drops, and what the supervisor tells it.

It is given listening sockets, descriptors of what only root may open, map descriptors and the memory of totals. It
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
from typing import Any, NoReturn

from exporter import log
from exporter.decoders import Names
from exporter.ipc import messages
from exporter.kernel import credentials, features
from exporter.server.registry import ProgramRegistry
from exporter.spec import Limits
from exporter.web import threads
from exporter.web.access import AccessControl
from exporter.web.application import Application, Request
from exporter.web.http_server import HttpServer

FINISH = 1.0 + threads.FINISH  # seconds for those who have connected when the server is asked to end
READS_WITHOUT_RIGHTS = (5, 19)  # the first kernel that lets a process without CAP_BPF read a map that it holds


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a server knows of the command line."""

    account: tuple[int, int]  # uid and gid
    metrics_path: str
    supervisor: int | None = None  # the process that it was forked from, and ends with


class Http:
    """The threads that answer requests."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve, name="http", daemon=True)

    def begin(self) -> None:
        """The first time it is called."""
        if self._thread.ident is None:
            self._thread.start()

    def finish(self) -> None:
        """Answer those who have connected; who connects from now on waits for the next server."""
        if self._thread.ident is not None:
            self._server.stop()
            self._thread.join(FINISH)


def serve(supervisor: socket.socket, listeners: Sequence[socket.socket], options: ServerOptions) -> NoReturn:
    """Serve until the supervisor ends. The caller is a forked child with no other descriptors than these."""
    greeting = messages.receive(supervisor)
    if greeting is None:
        os._exit(0)
    programs, http = start(*greeting, listeners, options)
    follow(supervisor, programs, http.begin)
    os._exit(0)  # without a supervisor nothing is attached any more


def start(
    document: dict[str, Any], fds: list[int], listeners: Sequence[socket.socket], options: ServerOptions
) -> tuple[ProgramRegistry, Http]:
    """Drop all rights, after the supervisor's first message. Owns `fds`. Gives the programs, and what answers requests
    for them once it has begun."""
    release = features.version(os.uname().release)
    uid, gid = options.account
    keep = frozenset() if release >= READS_WITHOUT_RIGHTS else frozenset({credentials.CAP_BPF})
    names = Names.of(dict(zip(document["names"], fds, strict=True)))
    programs = ProgramRegistry(names, Limits.model_validate(document["limits"]), unprivileged=not keep)
    programs.take(document, [])
    application = Application(programs, options.metrics_path)
    _rehearse(application, options.metrics_path)
    gc.freeze()  # what was imported stays: looking through it again and again would hold up a scrape now and then
    http = HttpServer(listeners, application)
    programs.access_control = AccessControl(http)
    programs.access_control.apply(news["settings"] if (news := document.get("web")) else None)
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
    """Take what the supervisor tells until it has gone.

    on_complete  is called when it has said of every program what it does: a scrape before that would miss what is there
    on_ready     is called when all programs were tried
    """
    complete = told = False
    while True:
        try:
            message = messages.receive(supervisor)
        except messages.ProtocolError as error:  # its packets are boundaries: the next message starts with its own
            log.get().error("a message of the supervisor was not understood: what runs goes on", why=str(error))
            continue
        except OSError:  # it was killed with something of ours unread
            return
        if message is None:
            return
        programs.take(*message)
        if programs.complete() and not complete:
            on_complete()
            complete = True
        if programs.ready() and not told:
            with contextlib.suppress(OSError):
                supervisor.send(b"ready")  # not before: what comes after `systemctl start` may scrape at once
            on_ready()
            told = True


def _rehearse(application: Application, metrics_path: str) -> None:
    """Answer every route once, in each format, so that whatever is imported on first use is imported now."""
    for path in ("/", metrics_path, "/-/ready"):
        for accept in ("", "application/openmetrics-text; version=1.0.0"):
            application(Request("GET", path, headers={"accept": accept, "accept-encoding": "gzip"}))
