"""Listening sockets from addresses such as ":10435", and a bounded HTTP server on each."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest

from exporter import log

THREADS = 8  # scrapes share one collection; more threads would only wait for its lock
QUEUED = 32  # connections with a request, waiting for a thread
IDLE = 128  # connections without one; they hold no thread
BACKLOG = 128
TIMEOUT = 10  # seconds for a request to come, and that a client may take between two bytes
ANSWER_TIMEOUT = 60  # seconds for collecting and for a client to take all of its answer
HEADER_LIMIT = 16 << 10  # bytes
BODY_LIMIT = 4 << 10  # bytes; no request has one
SEND = 64 << 10  # bytes that are worth a system call of their own


class AddressError(ValueError):
    """A listen address that cannot be understood or used; the text says which and why."""


def listen(address: str) -> socket.socket:
    """A socket bound to "HOST:PORT", "[IPV6]:PORT" or ":PORT" (IPv4 and IPv6). AddressError if it cannot be had."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise AddressError(f'listen address "{address}": expected HOST:PORT, [IPV6]:PORT or :PORT')
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise AddressError(f'listen address "{address}": write an IPv6 address in brackets, "[{host}]:{port}"')
    host = host.strip("[]")
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(("", int(port)), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        family, _, _, _, where = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(where, family=family, backlog=BACKLOG)  # whole: a link-local one has its interface
    except OSError as error:
        hint = " (another process listens there: see `ss -ltnp`)" if error.errno == errno.EADDRINUSE else ""
        raise AddressError(f'listen address "{address}": {_cause(error)}{hint}') from error


def _cause(error: OSError) -> str:
    """Without what create_server adds; getaddrinfo has error numbers of its own, and good words."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror or error)
    return os.strerror(error.errno)


def url(sock: socket.socket) -> str:
    """Where a person reaches a listening socket from this host."""
    host, port = sock.getsockname()[:2]
    if host in ("::", "0.0.0.0"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Ends:
    """Shuts down sockets whose time is over: one thread for all of them, started when it is first needed."""

    def __init__(self) -> None:
        self._ends: dict[object, tuple[float, socket.socket]] = {}
        self._changed = threading.Condition()
        self._wakes = float("-inf")  # when the thread looks again by itself; it does not run yet

    @contextmanager
    def after(self, seconds: float, sock: socket.socket) -> Iterator[None]:
        """Whoever reads or writes the socket in here finds it shut down when the time is over."""
        me, end = object(), time.monotonic() + seconds
        with self._changed:
            self._ends[me] = (end, sock)
            if self._wakes == float("-inf"):
                self._wakes = end
                threading.Thread(target=self._run, name="ends", daemon=True).start()
            elif end < self._wakes:
                self._wakes = end
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._ends.pop(me, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for me, (end, sock) in list(self._ends.items()):
                    if end <= now:
                        del self._ends[me]
                        with suppress(OSError):  # closed meanwhile
                            sock.shutdown(socket.SHUT_RDWR)
                self._wakes = min((end for end, _ in self._ends.values()), default=float("inf"))
                self._changed.wait(None if self._wakes == float("inf") else self._wakes - now)


_ends = _Ends()


class _Request(HTTPRequest):  # type: ignore[misc, unused-ignore]
    """A request that has its time. cheroot limits only the pause between two bytes: a client that sends or takes one
    every nine seconds would keep a thread for hours."""

    def parse_request(self) -> None:
        with _ends.after(self.server.timeout, self.conn.socket):
            super().parse_request()

    def respond(self) -> None:
        with _ends.after(self.server.answer_timeout, self.conn.socket):
            super().respond()


class _Writer:
    """What cheroot writes to a client with. Its own copies all that is left of an answer for every part that the socket
    takes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held: list[bytes] | None = None
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        if self._held is not None:
            self._held.append(data)
        else:
            self._send(data)
        return len(data)

    def hold(self) -> None:
        """Keep what is written until `send`."""
        self._held = []

    def send(self, pieces: Iterable[bytes | memoryview]) -> None:
        """What was kept and the pieces; small ones together, large ones as they are."""
        together, size = list[bytes | memoryview](self._held or ()), 0
        self._held = None
        for piece in pieces:
            together.append(piece)
            size += len(piece)
            if size >= SEND:
                self._send(b"".join(together) if len(together) > 1 else together[0])
                together, size = [], 0
        if together:
            self._send(b"".join(together))

    def _send(self, data: bytes | memoryview) -> None:
        self._sock.sendall(data)
        self.bytes_written += len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The connection closes its socket."""


class _Connection(HTTPConnection):  # type: ignore[misc, unused-ignore]
    RequestHandlerClass = _Request

    def __init__(self, server: Any, sock: socket.socket, makefile: Any) -> None:
        super().__init__(server, sock, makefile)
        self.wfile = _Writer(sock)


class _Gateway(wsgi.Gateway_10):  # type: ignore[misc, unused-ignore]
    """PEP 3333, but an application may also give memoryviews, and all pieces are sent without a copy."""

    def respond(self) -> None:
        answer = self.req.server.wsgi_app(self.env, self.start_response)
        self.req.conn.wfile.hold()
        try:
            self.req.ensure_headers_sent()
        finally:
            self.req.conn.wfile.send(answer)


def _has_data(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Server(wsgi.Server):  # type: ignore[misc, unused-ignore]
    """cheroot's WSGI server on a socket that is already bound, every resource bounded."""

    ConnectionClass = _Connection
    keep_alive_conn_limit = IDLE

    def __init__(
        self,
        sock: socket.socket,
        application: Any,
        *,
        timeout: int = TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        super().__init__(
            sock.getsockname()[:2],
            application,
            numthreads=THREADS,  # all at once: cheroot adds none later, whatever its `max` says
            server_name="bpf-exporter",  # cheroot tells its own version otherwise
            max=THREADS,
            request_queue_size=BACKLOG,
            timeout=timeout,
            accepted_queue_size=QUEUED,
            accepted_queue_timeout=TIMEOUT,
        )
        self.gateway = _Gateway
        self._bound = sock
        self.answer_timeout = answer_timeout
        self.max_request_header_size = HEADER_LIMIT
        self.max_request_body_size = BODY_LIMIT

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002, ARG002 - cheroot's names
        self.socket = self._bound
        return self._bound

    def process_conn(self, conn: Any) -> None:
        """A connection that may have a request. A new one waits among the idle ones until it has: cheroot would give it
        to a thread, and some clients that connect and say nothing (a load balancer's check) would take them all."""
        if conn.last_used is None and self.can_add_keepalive_connection and not _has_data(conn.socket):
            self.put_conn(conn)
        else:
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002
        log.get().log(level, "http server: " + msg.strip().splitlines()[0] if msg.strip() else "http server error")
