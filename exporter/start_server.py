"""Puts the server together for `bpf-exporter serve`: listening sockets, and the supervisor it finds by a socket.

Nothing of loading is imported here: this process never needs it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from exporter import __version__, log
from exporter.exits import EXIT_RIGHTS, EXIT_RUNTIME
from exporter.kernel import malloc, rights
from exporter.serving import connected_server, server_process
from exporter.web import listening


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of a server."""

    socket: Path  # the supervisor's
    listen: tuple[str, ...]
    systemd_socket: bool  # listen where the service manager does
    metrics_path: str
    account: tuple[int, int]  # uid and gid


def run(options: Options) -> int:
    """Serve until killed. The exit code: 1 if nothing could be served, 4 for missing rights."""
    logger = log.get()
    malloc.give_back()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the configuration is the supervisor's
    uid = options.account[0]
    if missing := rights.missing_to_become(*options.account):
        logger.error(f"a server of user {uid} needs {', '.join(missing)}: run as that user, or as root")
        return EXIT_RIGHTS
    try:
        listeners = listening.sockets(options.listen, from_service_manager=options.systemd_socket)
    except listening.AddressError as error:
        logger.error(str(error))
        return EXIT_RUNTIME
    logger.info("bpf-exporter server starts", version=__version__, kernel=os.uname().release)
    for sock in listeners:
        logger.info("listening", url=listening.url(sock, options.metrics_path))
    try:
        connected_server.serve(options.socket, listeners, server_process.Options(options.account, options.metrics_path))
    except connected_server.NoSupervisorError as error:
        logger.error(str(error))
        return EXIT_RUNTIME
    except OSError as error:
        logger.error(f"server: {error.strerror or error} (docs/security.md has what kernels before 5.19 want)")
        return EXIT_RIGHTS
