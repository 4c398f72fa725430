"""Puts the server together for `bpf-exporter serve`: listening sockets, and the supervisor it finds by a socket.

Nothing of loading is imported here: this process never needs it.
"""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from exporter import __version__, log
from exporter.commands.exit_codes import EXIT_RIGHTS, EXIT_RUNTIME
from exporter.kernel import malloc, rights
from exporter.server import process, unit
from exporter.web import listening


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says of a server."""

    socket: Path  # the supervisor's
    listen: tuple[str, ...]
    systemd_socket: bool  # listen where the service manager does
    metrics_path: str
    account: tuple[int, int]  # uid and gid


def run(options: ServeOptions) -> int:
    """Serve until killed. The exit code: 1 if nothing could be served, 4 for missing rights."""
    logger = log.get()
    malloc.return_freed_memory()
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
        unit.serve(options.socket, listeners, process.ServerOptions(options.account, options.metrics_path))
    except unit.NoSupervisorError as error:
        logger.error(str(error))
        return EXIT_RUNTIME
    except OSError as error:
        logger.error(f"server: {error.strerror or error} (docs/security.md has what kernels before 5.19 want)")
        return EXIT_RIGHTS


def command(options: argparse.Namespace) -> int:
    """`bpf-exporter serve`. The exit code."""
    log.configure(options.log_level, options.log_format)
    return run(
        ServeOptions(
            socket=options.socket,
            listen=tuple(options.listen or [":10435"]),
            systemd_socket=options.systemd_socket,
            metrics_path=options.metrics_path,
            account=options.user,
        )
    )
