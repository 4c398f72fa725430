"""A bounded HTTP server: listening sockets and a handler -> connections on eight threads."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial

from exporter.web.application import Handler
from exporter.web.connection import ANSWER_TIMEOUT, REST_TIMEOUT, TIMEOUT, Access, Connection, Service
from exporter.web.threads import Threads

THREADS = 8  # scrapes share one collection; more threads would only wait for its lock
WAITING = 256  # connections that wait for their clients; they hold no thread


class HttpServer:
    """service  what its connections share; AccessControl replaces `service.access` while the server runs"""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        handler: Handler,
        *,
        timeout: float = TIMEOUT,
        rest_timeout: float = REST_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self.service = Service(Access(handler), timeout, rest_timeout, answer_timeout)
        connect = partial(Connection, self.service)
        shortest = min(timeout, answer_timeout)
        self._threads = Threads(listeners, connect, threads=THREADS, most=WAITING, timeout=shortest)

    def serve(self) -> None:
        """Serve until `stop`."""
        self._threads.run()

    def stop(self) -> None:
        """Ask the server to end; does not wait for that."""
        self.service.ending = True
        self._threads.stop()
