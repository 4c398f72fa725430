"""The server as a unit of its own: finds its supervisor by a socket, and goes on without one until it is back.

Maps stay readable while their supervisor is away, because the descriptors are here: scrapes are answered from them, and
what the kernel counts meanwhile is in them. The next supervisor took the same maps out of the service manager's store,
so the collectors go on as they are; where it had to load a program anew, its collector is made anew.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from exporter import __version__, log
from exporter.ipc import messages
from exporter.program import State
from exporter.server import watchdog
from exporter.server.process import ServerOptions, follow, start
from exporter.server.registry import ProgramRegistry
from exporter.systemd import notify

FIRST_WAIT = 30.0  # seconds that a server waits for its first supervisor; the service manager starts it again
SHORTEST, LONGEST = 0.05, 2.0  # seconds between two tries to connect
GREETING_TIMEOUT = 20.0  # seconds that a supervisor may take to greet: it may be busy with another one's end

Greeting = tuple[dict[str, Any], list[int]]


class AskedToEndError(BaseException):
    """SIGTERM came, wherever this process was."""


class NoSupervisorError(Exception):
    """Nobody answers at the socket; the text says why."""


def serve(path: Path, listeners: Sequence[socket.socket], options: ServerOptions) -> NoReturn:
    """Serve until SIGTERM. NoSupervisorError where there is none from the start, OSError where rights are missing."""
    connection, greeting = _connect(path, time.monotonic() + FIRST_WAIT)
    _compare_versions(greeting[0])
    programs, http = start(*greeting, listeners, options)
    watchdog.start(programs)
    try:
        signal.signal(signal.SIGTERM, _asked)
        while True:
            follow(connection, programs, http.begin, lambda: _announce(programs))
            connection.close()
            programs.set_connected(False)
            log.get().warning("the supervisor has gone: serving on from the maps that are here", socket=str(path))
            connection, (document, fds) = _connect(path)
            for fd in fds:  # the names of this host are open
                os.close(fd)
            _compare_versions(document)
            programs.take(document, [])
            programs.set_connected(True)
            log.get().info("the supervisor is back", socket=str(path))
    except AskedToEndError:
        notify("STOPPING=1")
        http.finish()
        os._exit(0)  # threads that drain or watch are not waited for


def _asked(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise AskedToEndError


def _announce(programs: ProgramRegistry) -> None:
    states = [program.state for program in programs.programs()]
    notify("READY=1", f"STATUS={states.count(State.RUNNING)} of {len(states)} programs running")


def _compare_versions(document: dict[str, Any]) -> None:
    if (theirs := document.get("version")) != __version__:
        hint = "systemctl restart bpf-exporter-supervisor bpf-exporter"
        log.get().warning("the supervisor is of another version", supervisor=theirs, server=__version__, hint=hint)


def _connect(path: Path, deadline: float | None = None) -> tuple[socket.socket, Greeting]:
    """A connection, and what it was greeted with. One that is closed without a word was refused."""
    pause = SHORTEST
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(path))
            sock.settimeout(GREETING_TIMEOUT)
            if greeting := messages.receive(sock):
                sock.settimeout(None)
                return sock, greeting
            why = "it closed the connection (another server is connected, or this is not the server's user)"
        except (OSError, messages.ProtocolError) as error:
            why = getattr(error, "strerror", None) or str(error)
        sock.close()
        if deadline is not None and time.monotonic() > deadline:
            raise NoSupervisorError(f"supervisor: connect {path}: {why} (systemctl status bpf-exporter-supervisor)")
        time.sleep(pause)
        pause = min(LONGEST, 2 * pause)
