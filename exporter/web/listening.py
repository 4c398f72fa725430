"""Listening sockets from addresses such as ":10435", and a bounded HTTP server on each."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cheroot import wsgi
from cheroot.makefile import MakeFile
from cheroot.server import HTTPConnection, HTTPRequest

from exporter import log
from exporter.web import plain
from exporter.web.threads import Threads

THREADS = 8  # scrapes share one collection; more threads would only wait for its lock
IDLE = 128  # connections without a request; they hold no thread
BACKLOG = 128  # connections that wait to be taken
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

    def __init__(self, server: Any, sock: socket.socket, address: Any) -> None:
        """`address`: of the client, as accept(2) gives it."""
        # Not cheroot's own: it makes buffers that a plain request needs none of.
        self.server = server
        self.socket = sock
        self.wfile = _Writer(sock)
        self.requests_seen = 0
        self.ssl_env: dict[str, str] = {}
        self._rfile: Any = None
        if isinstance(address, tuple):
            self.remote_addr, self.remote_port = address[:2]

    @property
    def rfile(self) -> Any:
        """What cheroot reads requests from."""
        if self._rfile is None:
            self._rfile = MakeFile(self.socket, "rb", self.rbufsize)
        return self._rfile

    @property
    def buffered(self) -> bool:
        """Whether a part of the next request was read already."""
        return self._rfile is not None and self._rfile.has_data()

    def answer(self) -> bool:
        """One request of those that have come. Gives whether the connection goes on."""
        try:
            if not self.buffered and self.server.ssl_adapter is None:
                request = plain.waiting(self.socket)
                if request is not None:
                    return self._answer_plain(request)
            general: Any = self
            return bool(general.communicate())
        except (ConnectionError, TimeoutError):  # clients leave, and networks break
            return False

    def _answer_plain(self, request: plain.Request) -> bool:
        said: list[Any] = []
        with _ends.after(self.server.answer_timeout, self.socket):
            self.socket.recv(request.size)
            environ = {**request.environ, "wsgi.url_scheme": "http", "REMOTE_ADDR": self.remote_addr or ""}
            body = self.server.wsgi_app(environ, lambda *status_and_headers: said.extend(status_and_headers))
            headers = [*said[1], ("Server", self.server.server_name)]
            self.wfile.hold()
            self.wfile.write(plain.head(said[0], headers, closes=request.closes))
            self.wfile.send(body)
        return not request.closes

    def close(self) -> None:
        if self._rfile is not None:
            self._rfile.close()
        with suppress(OSError):  # the client was faster
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class _Gateway(wsgi.Gateway_10):  # type: ignore[misc, unused-ignore]
    """PEP 3333, but an application may also give memoryviews, and all pieces are sent without a copy."""

    def respond(self) -> None:
        answer = self.req.server.wsgi_app(self.env, self.start_response)
        self.req.conn.wfile.hold()
        try:
            self.req.ensure_headers_sent()
        finally:
            self.req.conn.wfile.send(answer)


class Server(wsgi.Server):  # type: ignore[misc, unused-ignore]
    """What cheroot makes of a request, on a socket that is already bound, with threads of our own. Every resource is
    bounded."""

    def __init__(
        self,
        sock: socket.socket,
        application: Any,
        *,
        timeout: int = TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        # cheroot tells its own name and version if it is not given another.
        super().__init__(sock.getsockname()[:2], application, server_name="bpf-exporter", timeout=timeout)
        self.gateway = _Gateway
        self.socket = sock
        self.answer_timeout = answer_timeout
        self.max_request_header_size = HEADER_LIMIT
        self.max_request_body_size = BODY_LIMIT
        self._threads = Threads(
            sock, self._accept, _Connection.answer, threads=THREADS, resting=IDLE, timeout=float(timeout)
        )

    def prepare(self) -> None:
        self.software = self.server_name
        self.socket.setblocking(False)  # another thread may have taken what this one was woken for
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

    def _accept(self) -> _Connection | None:
        try:
            sock, address = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        sock.settimeout(self.timeout)
        return _Connection(self, sock, address)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002
        log.get().log(level, "http server: " + msg.strip().splitlines()[0] if msg.strip() else "http server error")
