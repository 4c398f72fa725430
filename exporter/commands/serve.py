"""`serve`: listening sockets, and a server that connects to the supervisor's socket.

It imports nothing of loading/, which this process never needs.
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
    """Options of a server."""

    socket: Path  # the supervisor's
    listen: tuple[str, ...]
    systemd_socket: bool  # listen on the sockets that the service manager passes
    metrics_path: str
    account: tuple[int, int]  # uid and gid


def run(options: ServeOptions) -> int:
    """Serve until killed. Return the exit code: 1 if the server cannot serve, 4 for missing rights."""
    logger = log.get()
    malloc.return_freed_memory()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor reads the configuration
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
        logger.error(f"server: {error.strerror or error} (docs/security.md has what kernels before 5.19 need)")
        return EXIT_RIGHTS


def command(options: argparse.Namespace) -> int:
    """Run `bpf-exporter serve` and return its exit code."""
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
