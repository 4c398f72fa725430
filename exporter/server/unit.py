"""The server as a unit of its own: connects to the supervisor's socket, and keeps serving while the supervisor is away.

The server has descriptors of the maps, so maps stay readable without a supervisor, and the kernel continues to count in
them. The next supervisor takes the same maps out of the service manager's store, and the collectors continue; a program
that it has to load again gets a new collector.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from exporter import __version__, log
from exporter.ipc import messages, protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import Hello
from exporter.program import State
from exporter.server import watchdog
from exporter.server.process import ServerOptions, follow, start
from exporter.server.registry import ProgramRegistry
from exporter.systemd import notify

FIRST_WAIT = 30.0  # seconds that a server waits for its first supervisor; the service manager starts it again
SHORTEST, LONGEST = 0.05, 2.0  # seconds between two tries to connect
RESTART = "systemctl restart bpf-exporter-supervisor bpf-exporter"
GREETING_TIMEOUT = 20.0  # seconds for the supervisor's greeting: it may be busy with the end of another server


class AskedToEndError(BaseException):
    """Raised by SIGTERM, wherever this process is."""


class NoSupervisorError(Exception):
    """No supervisor answers at the socket; the text has the error."""


def serve(path: Path, listeners: Sequence[socket.socket], options: ServerOptions) -> NoReturn:
    """Serve until SIGTERM. NoSupervisorError where there is none from the start, OSError where rights are missing."""
    connection, hello, fds = _connect(path, time.monotonic() + FIRST_WAIT)
    programs, http = start(hello, fds, listeners, options)
    watchdog.start(programs)
    try:
        signal.signal(signal.SIGTERM, _asked)
        while True:
            follow(connection, programs, http.begin, lambda: _announce(programs))
            connection.close()
            programs.set_connected(False)
            log.get().warning("the supervisor is gone: scrapes are answered from its maps", socket=str(path))
            time.sleep(SHORTEST)  # a supervisor that refuses this server must not keep both busy
            connection, hello, fds = _connect(path)
            messages.close(fds)  # this server has them open
            programs.update(hello)
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


def _compare_versions(release: str) -> None:
    if release != __version__:
        log.get().warning("the supervisor is of another version", supervisor=release, server=__version__, hint=RESTART)


def _connect(path: Path, deadline: float | None = None) -> tuple[socket.socket, Hello, list[int]]:
    """Return a connection, and the greeting with its descriptors. One that is closed without a greeting was refused."""
    pause = SHORTEST
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(path))
            sock.settimeout(GREETING_TIMEOUT)
            if received := protocol.receive(sock, Hello):
                sock.settimeout(None)
                _compare_versions(received[0].release)
                return sock, *received
            cause = "it closed the connection (another server is connected, or this is not the server's user)"
        except ProtocolError as error:
            cause = str(error)
            log.get().error("the supervisor's greeting was not understood", error=cause, hint=RESTART)
        except OSError as error:
            cause = error.strerror or str(error)
        sock.close()
        if deadline is not None and time.monotonic() > deadline:
            raise NoSupervisorError(f"supervisor: connect {path}: {cause} (systemctl status bpf-exporter-supervisor)")
        time.sleep(pause)
        pause = min(LONGEST, 2 * pause)
