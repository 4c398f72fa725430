"""A bounded HTTP server on sockets that listen: requests -> an application (PEP 3333) -> answers."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from cheroot import wsgi

from exporter import log
from exporter.web.connection import HEADER_LIMIT, Connection, Security
from exporter.web.threads import Threads

THREADS = 8  # scrapes share one collection; more threads would only wait for its lock
WAITING = 256  # connections that wait for their clients; they hold no thread
TIMEOUT = 10  # seconds for a handshake and a request to come
REST_TIMEOUT = 130  # seconds that a connection waits for its next request: two scrapes a minute apart find it
ANSWER_TIMEOUT = 60  # seconds for a client to take all of its answer
BODY_LIMIT = 4 << 10  # bytes; no request has one


class _Gateway(wsgi.Gateway_10):  # type: ignore[misc, unused-ignore]
    """PEP 3333, but an application may also give memoryviews, and all pieces are sent without a copy."""

    def respond(self) -> None:
        answer = self.req.conn.application(self.env, self.start_response)
        self.req.conn.wfile.hold()
        try:
            self.req.ensure_headers_sent()
        finally:
            self.req.conn.wfile.send(answer)


class HttpServer(wsgi.Server):  # type: ignore[misc, unused-ignore]
    """What cheroot makes of a request, on sockets and threads of our own. Every resource is bounded.

    way  the application that requests go to from now on, and the TLS of connections from now on, None for none; those
         with another one end when they send a request. Both at once: no request finds one of before and one of after
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: Any,
        *,
        timeout: int = TIMEOUT,
        rest_timeout: float = REST_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        # cheroot tells its own name and version if it is not given another.
        super().__init__(("localhost", 0), application, server_name="bpf-exporter", timeout=timeout)
        self.gateway = _Gateway
        self.way: tuple[Any, Security | None] = application, None
        self.rest_timeout = rest_timeout
        self.answer_timeout = answer_timeout
        self.max_request_header_size = HEADER_LIMIT
        self.max_request_body_size = BODY_LIMIT
        self._threads = Threads(
            listeners,
            lambda sock, address: Connection(self, sock, address),
            threads=THREADS,
            most=WAITING,
            timeout=min(timeout, answer_timeout),
        )

    def prepare(self) -> None:
        self.software = self.server_name
        self.ready = True

    def serve(self) -> None:
        """Until `stop`."""
        self._threads.run()

    def stop(self) -> None:
        self.ready = False
        self._threads.stop()

    @property
    def can_add_keepalive_connection(self) -> bool:
        """There is always room for one that was just used."""
        return bool(self.ready)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002
        log.get().log(level, "http server: " + msg.strip().splitlines()[0] if msg.strip() else "http server error")
