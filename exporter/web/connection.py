"""One client's connection: what has come of its request, and what it has not yet taken of its answer. Never blocks."""

from __future__ import annotations

import io
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum, IntEnum, auto
from typing import Any, Protocol

from cheroot.server import HTTPConnection, HTTPRequest

from exporter import log
from exporter.web import plain
from exporter.web.would_block import ClientRefusedError, WouldBlock, WrongPortError

HEADER_LIMIT = 16 << 10  # bytes of a request line and its headers
RECEIVED = 16 << 10  # bytes at once
SEND = 64 << 10  # bytes that are worth a system call of their own
LINGERS = 2.0  # seconds for the end of what a client sends and nobody reads
ASKS = 1.0  # seconds within which a client that has connected begins to ask
_BEGINS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n")  # what a request may begin with
_END = b"\r\n\r\n"
_OF_BODIES = {b"Content-Length", b"Transfer-Encoding"}
_TO_PLAIN = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nthis port speaks HTTPS: write https://\n"


class State(Enum):
    HANDSHAKE = auto()  # of TLS
    REQUEST = auto()  # the client sends it, or does not yet
    ANSWER = auto()  # the client takes it
    LINGERING = auto()  # all is said, and the client still sends


class Progress(IntEnum):
    """How much a client has shown that it means to ask: who shows nothing has to go first where there are too many."""

    NOTHING = 0
    SOMETHING = 1
    GREETED = 2  # a whole ClientHello, or a request before this one


class Security(Protocol):
    """TLS on a socket that does not block. Wants, where the client has to do something first."""

    def wrap(self, sock: socket.socket) -> socket.socket:
        """Before the handshake."""

    def unwrap(self, sock: socket.socket) -> socket.socket:
        """The socket below, to speak without TLS."""

    def shake(self, sock: socket.socket) -> None:
        """RefusedError, with a text that says why this client may not come in; WrongPortError."""

    def has_greeted(self, sock: socket.socket) -> bool:
        """Whether the client's first message of the handshake has come whole."""

    def receive(self, sock: socket.socket, size: int) -> bytes: ...

    def has_more(self, sock: socket.socket) -> bool:
        """Whether something has come that epoll(7) does not see."""

    def send(self, sock: socket.socket, data: memoryview) -> int: ...

    def close(self, sock: socket.socket) -> None:
        """Say that nothing follows."""


class Writer:
    """What is still to be sent. A page is sent as it is: many clients may be sent the same one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: list[bytes] | None = None
        self._rest: Iterator[bytes | memoryview] = iter(())
        self._chunk = memoryview(b"")
        self.page: Sequence[bytes | memoryview] = ()
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        if self._held is not None:
            self._held.append(data)
        else:
            self._rest = iter([*self._unsent(), data])
        return len(data)

    def hold(self) -> None:
        """Keep what is written until `send`."""
        self._held = []

    def send(self, pieces: Sequence[bytes | memoryview], head: bytes | None = None) -> None:
        """The head, or what was kept, and the pieces, as `push` sends it: small ones together, large ones as they
        are."""
        before, self._held = self._held or [], None
        self.page = pieces
        self._rest = _together([*self._unsent(), *(before if head is None else [head])], pieces)

    def push(self) -> None:
        """Send all that is to be sent. Wants, where the client has to take some first; OSError where it is gone."""
        while True:
            if not self._chunk:
                following = next(self._rest, None)
                if following is None:
                    self.page = ()
                    return
                self._chunk = memoryview(following)
            sent = self._connection.send(self._chunk)
            self.bytes_written += sent
            self._chunk = self._chunk[sent:]

    def _unsent(self) -> list[bytes | memoryview]:
        first, self._chunk = self._chunk, memoryview(b"")
        return [*([first] if first else ()), *self._rest]

    def flush(self) -> None:
        """It is `push` that sends."""

    def close(self) -> None:
        """Let go of what is not sent, and of the connection: each would keep the other until the collector comes."""
        self._rest, self._chunk, self.page = iter(()), memoryview(b""), ()
        del self._connection


def _together(together: list[bytes | memoryview], pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    size = 0
    for piece in pieces:
        together.append(piece)
        size += len(piece)
        if size >= SEND:
            yield b"".join(together) if len(together) > 1 else together[0]
            together, size = [], 0
    if together:
        yield b"".join(together)


class Request(HTTPRequest):  # type: ignore[misc, unused-ignore]
    """A request that is in memory as a whole, or as much of it as may come. Bodies are not read: nobody wants one."""

    def parse_request(self) -> None:
        try:
            super().parse_request()
        except (ValueError, UnboundLocalError):  # cheroot of a target as "//[", and of a first header that goes on
            self.simple_response("400 Bad Request")
        if not _OF_BODIES.isdisjoint(self.inheaders):
            # Or what follows would be taken for the next request. Whatever the length: of two that differ, and of one
            # that goes on in the next line, cheroot sees the last.
            self.close_connection = True
            self.conn.sends_more = True
        if not self.ready:
            self.conn.sends_more = True


class Connection(HTTPConnection):  # type: ignore[misc, unused-ignore]
    """A socket and what is going on there. One thread at a time works on it.

    since  when it began to wait for what `state` says, by the monotonic clock
    until  when that has to have come
    """

    RequestHandlerClass = Request

    def __init__(self, server: Any, sock: socket.socket, address: Any) -> None:
        """`server`: cheroot's, with `way` (an application, and a Security or None), `timeout`, `rest_timeout` and
        `answer_timeout`."""
        # Not cheroot's own: it makes buffers that are not needed, and cycles, which only the collector would free.
        sock.setblocking(False)
        self.server = server
        self.application: Any
        self.tls: Security | None
        self.application, self.tls = server.way
        self.socket = sock if self.tls is None else self.tls.wrap(sock)
        self.fd = self.socket.fileno()
        self.remote_addr, self.remote_port = address[:2] if isinstance(address, tuple) else ("", 0)
        self.ssl_env: dict[str, str] = {}
        self.rfile: Any = io.BytesIO()
        self.wfile = Writer(self)
        self.requests_seen = 0
        self.sends_more = False
        self.progress = Progress.NOTHING
        self._came = b""
        self._goes_on = False
        self._rests = False
        self._secured_by = self.tls
        self._wait(State.REQUEST if self.tls is None else State.HANDSHAKE, server.timeout)

    def _wait(self, state: State, seconds: float) -> None:
        self.state, self.since = state, time.monotonic()
        self.until = self.since + seconds

    def is_owed(self) -> bool:
        """Whether its client has no whole answer: to what it asked, or is about to ask because it has just come."""
        if self._rests:
            return False
        asks = self.state not in {State.REQUEST, State.HANDSHAKE} or self.progress is not Progress.NOTHING
        return asks or time.monotonic() - self.since < ASKS

    def work(self) -> int | None:
        """Do what can be done without waiting: what to wait for then, as epoll(7) has it; None where it has ended."""
        try:
            if self.state is State.LINGERING:
                return self._linger()
            if self.state is not State.ANSWER:
                self._receive_request()
                self.application, tls = self.server.way
                if self._secured_by is not tls:
                    return None  # who may come in has changed since it did
                self._wait(State.ANSWER, self.server.answer_timeout)
                self._goes_on = self._answer()
            self.wfile.push()
            return self._rest() if self._goes_on else self._end()
        except WouldBlock as wants:
            if self.progress < Progress.GREETED and (self._came or (self.tls and self.tls.has_greeted(self.socket))):
                self.progress = Progress.GREETED if self.tls else Progress.SOMETHING
            return select.EPOLLOUT if wants.to_write else select.EPOLLIN
        except ClientRefusedError as error:
            log.get().warning("client refused", address=self.remote_addr or "a Unix socket", why=str(error))
            return None
        except OSError:  # clients leave, and networks break
            return None

    def _receive_request(self) -> None:
        """Until its head is there, or what cannot be one. Wants; ConnectionResetError where nothing follows."""
        if self.state is State.HANDSHAKE:
            self._shake()
        while not self._has_request():
            data = self.tls.receive(self.socket, RECEIVED) if self.tls else self._receive()
            if not data:
                raise ConnectionResetError
            if self._rests:
                self._rests = False
                self._wait(State.REQUEST, self.server.timeout)
            self._came += data

    def _has_request(self) -> bool:
        came = self._came
        return _END in came or len(came) > HEADER_LIMIT or (came != b"" and came[0] not in _BEGINS)

    def _shake(self) -> None:
        assert self.tls is not None
        try:
            self.tls.shake(self.socket)
            self.state = State.REQUEST
        except WrongPortError:
            self.socket, self.tls = self.tls.unwrap(self.socket), None
            self.wfile.write(_TO_PLAIN)
            self._wait(State.ANSWER, LINGERS)
            self.sends_more = True
            self.wfile.push()
            raise WouldBlock(to_write=True) from None

    def _answer(self) -> bool:
        """Have the request answered: what is to be sent is in `wfile` then. Whether another one may follow."""
        request = plain.parsed(self._came)
        if request is not None:
            self._came = b""
            self._answer_plain(request)
            return not request.closes
        end = self._came.find(_END) + len(_END) if _END in self._came else len(self._came)
        self.rfile, self._came = io.BytesIO(self._came[:end]), self._came[end:]
        return bool(self.communicate())  # type: ignore[no-untyped-call, unused-ignore]

    def _answer_plain(self, request: plain.Request) -> None:
        said: list[Any] = []
        environ = {**request.environ, "wsgi.url_scheme": "http", "REMOTE_ADDR": self.remote_addr}
        body = self.application(environ, lambda *status_and_headers: said.extend(status_and_headers))
        headers = [*said[1], ("Server", self.server.server_name)]
        self.wfile.send(body, plain.head(said[0], headers, closes=request.closes))

    def _rest(self) -> int:
        """Until the next request. One that has come already waits behind those of others: a socket that can be written
        to is ready at once."""
        self._rests = not self._came
        self._wait(State.REQUEST, self.server.rest_timeout if self._rests else self.server.timeout)
        self.progress = Progress.GREETED
        more = self._has_request() or (self.tls is not None and self.tls.has_more(self.socket))
        return select.EPOLLIN | select.EPOLLOUT if more else select.EPOLLIN

    def _end(self) -> int | None:
        """Say that nothing follows. A socket that is closed with something to read in it tells the client of an error
        before it has read the answer: that is read first, and thrown away."""
        if self.tls is not None:
            self.tls.close(self.socket)
        if not self.sends_more:
            return None
        self.socket.shutdown(socket.SHUT_WR)
        self._wait(State.LINGERING, LINGERS)
        return self._linger()

    def _linger(self) -> int | None:
        """A little at a time: a client that sends faster than this reads would hold a thread."""
        try:
            if not socket.socket.recv(self.socket, RECEIVED):  # below TLS
                return None
        except BlockingIOError:
            pass
        return select.EPOLLIN if time.monotonic() < self.until else None

    def _receive(self) -> bytes:
        data: bytes
        try:
            data = self.socket.recv(RECEIVED)
        except BlockingIOError:
            raise WouldBlock(to_write=False) from None
        return data

    def send(self, data: memoryview) -> int:
        """How much was taken. Wants; OSError where the client is gone."""
        if self.tls is not None:
            return self.tls.send(self.socket, data)
        sent: int
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            raise WouldBlock(to_write=True) from None
        return sent

    def close(self) -> None:
        with suppress(OSError):  # the client was faster
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._came, self.rfile = b"", None
        self.wfile.close()
