"""One client's connection: h11 parses what the client sends and decides whether the connection is kept. Never blocks.

A connection takes one request at a time. Pipelined requests wait in h11's buffer, in order, until the client has taken
the whole answer before them.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Any, Protocol
from urllib.parse import unquote

import h11

from exporter import log
from exporter.web.application import METHODS, Handler, Request, Response, text_response
from exporter.web.page import Piece, size

HEADER_LIMIT = 16 << 10  # bytes of a request line and its headers
RECEIVED = 16 << 10  # bytes that a lingering connection reads at once
SEND = 64 << 10  # bytes that are worth a system call of their own
LINGERS = 2.0  # seconds that a client has to end what it sends and the server does not read
ASKS = 1.0  # seconds within which a client that has connected begins its request
TIMEOUT = 10  # seconds for a handshake and a request to come
REST_TIMEOUT = 130  # seconds that a connection waits for its next request: two scrapes a minute apart find it
ANSWER_TIMEOUT = 60  # seconds for a client to take all of its answer
_TO_PLAIN = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nthis port speaks HTTPS: write https://\n"
_MALFORMED = "this is not a valid request (RFC 9112)"
# RFC 9112, 3.2: origin-form, or absolute-form with any path. Brackets are allowed in a query: collect[] has some.
_TARGET = re.compile(
    r"(?:https?://[^/?#]+(?![^/?])|(?=/))((?:/(?:[\w/.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)?)(?:\?([!-~]*))?", re.ASCII
)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    414: "URI Too Long",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Phase(Enum):
    HANDSHAKE = auto()  # of TLS
    REQUEST = auto()  # the client sends a request, or is about to
    ANSWER = auto()  # the client takes the answer
    LINGERING = auto()  # the answer is sent, and the client still sends


class Progress(IntEnum):
    """The progress of a client towards a request: a client without any is the first to be evicted."""

    NOTHING = 0
    SOMETHING = 1
    GREETED = 2  # a whole ClientHello, or a request before this one


class WouldBlock(Exception):  # noqa: N818 (not an error: the operation is repeated when the socket is ready)
    """The socket has to become readable, or writable, first."""

    def __init__(self, *, to_write: bool) -> None:
        super().__init__()
        self.to_write = to_write


class ClientRefusedError(OSError):
    """TLS refuses this client; the text says why."""


class WrongPortError(OSError):
    """The client speaks plain HTTP to a port with TLS."""


class Security(Protocol):
    """TLS on a socket that does not block. Every method may raise WouldBlock."""

    def wrap(self, sock: socket.socket) -> socket.socket:
        """Return the socket with TLS, before the handshake."""

    def unwrap(self, sock: socket.socket) -> socket.socket:
        """Return the socket below, without TLS."""

    def handshake(self, sock: socket.socket) -> None:
        """Continue the handshake. ClientRefusedError, WrongPortError."""

    def has_greeted(self, sock: socket.socket) -> bool:
        """Return True once the client's first message of the handshake is complete."""

    def receive(self, sock: socket.socket, size: int) -> bytes: ...

    def has_more(self, sock: socket.socket) -> bool:
        """Return True if decrypted data is ready that epoll(7) does not see."""

    def send(self, sock: socket.socket, data: memoryview) -> int: ...

    def close(self, sock: socket.socket) -> None:
        """Send the client TLS's end of data."""


@dataclass(frozen=True, slots=True)
class Access:
    """The handler of every request from now on, and the TLS of every connection from now on (None: no TLS).

    A server replaces both as one: no request meets the passwords of one configuration and the TLS of another.
    """

    handler: Handler
    security: Security | None = None


@dataclass(slots=True)
class Service:
    """The state that all connections of one server share. `ending`: each answer is the last one of its connection."""

    access: Access
    timeout: float = TIMEOUT
    rest_timeout: float = REST_TIMEOUT
    answer_timeout: float = ANSWER_TIMEOUT
    ending: bool = False


class Connection:
    """A socket and its state. One thread at a time works on it.

    since  when the connection began to wait for what `phase` says, by the monotonic clock
    until  when that has to have come
    page   the pieces that the client is being sent; many clients may be sent the same ones
    """

    def __init__(self, service: Service, sock: socket.socket, address: Any) -> None:
        sock.setblocking(False)
        self._service = service
        self._secured_by = self.tls = service.access.security
        self.socket = sock if self.tls is None else self.tls.wrap(sock)
        self.fd = self.socket.fileno()
        self.address: str = address[0] if isinstance(address, tuple) else ""
        self.progress = Progress.NOTHING
        self.page: Sequence[Piece] = ()
        self._http = h11.Connection(h11.SERVER, HEADER_LIMIT)
        self._is_head = False
        self._chunks: Iterator[Piece] = iter(())
        self._chunk = memoryview(b"")
        self._rests = False
        self._wait(Phase.REQUEST if self.tls is None else Phase.HANDSHAKE, service.timeout)

    def _wait(self, phase: Phase, seconds: float) -> None:
        self.phase, self.since = phase, time.monotonic()
        self.until = self.since + seconds

    def is_owed(self) -> bool:
        """Return True if the client waits for an answer, or has just connected and is about to ask."""
        if self._rests or self.phase is Phase.LINGERING:
            return False
        asks = self.phase not in {Phase.REQUEST, Phase.HANDSHAKE} or self.progress is not Progress.NOTHING
        return asks or time.monotonic() - self.since < ASKS

    def work(self) -> int | None:
        """Do what can be done without waiting. Return the epoll(7) events to wait for; None if the connection ends."""
        try:
            if self.phase is Phase.LINGERING:
                return self._linger()
            if self.phase is Phase.HANDSHAKE:
                self._handshake()
            if self.phase is Phase.REQUEST:
                request = self._receive_request()
                access = self._service.access
                if self._secured_by is not access.security:
                    return None  # the client may be one that would be refused now
                self._wait(Phase.ANSWER, self._service.answer_timeout)
                self._answer(request if isinstance(request, Response) else access.handler(request))
            self._push()
            is_kept = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
            return self._rest() if is_kept else self._end()
        except WouldBlock as blocked:
            greeted = self.tls is not None and self.tls.has_greeted(self.socket)
            if self.progress < Progress.GREETED and (greeted or self._buffered()):
                self.progress = Progress.GREETED if self.tls else Progress.SOMETHING
            return select.EPOLLOUT if blocked.to_write else select.EPOLLIN
        except ClientRefusedError as error:
            log.get().warning("client refused", address=self.address or "a Unix socket", error=str(error))
            return None
        except OSError:  # clients leave, and networks break
            return None

    def _handshake(self) -> None:
        assert self.tls is not None
        try:
            self.tls.handshake(self.socket)
            self.phase = Phase.REQUEST
        except WrongPortError:
            self.socket, self.tls = self.tls.unwrap(self.socket), None
            self._wait(Phase.ANSWER, LINGERS)
            self._chunks = iter([_TO_PLAIN])

    def _receive_request(self) -> Request | Response:
        """Return the next request, or the answer to one that is refused, after which the connection ends. WouldBlock;
        ConnectionResetError if the client has no further request."""
        http = self._http
        self._is_head = False
        is_first = True
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                data = self._receive()
                if is_first and not self._buffered():
                    data = data.removeprefix(b"\r\n")  # RFC 9112, 2.2: an empty line before a request is ignored
                is_first = False
                if data:  # b"" would tell h11 that the client has ended
                    http.receive_data(data)
            assert isinstance(event, h11.Request)
            self._is_head = event.method == b"HEAD"
            request = self._request(event)
            if not event.http_version.startswith(b"1."):  # RFC 9110, 2.5: a higher minor version is answered as 1.1
                return _refusal(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
            if int(request.headers.get("content-length", 0)) or "transfer-encoding" in request.headers:
                return _refusal(413, "a request has no body here")
            if not request.path and request.method in METHODS:
                return _refusal(400, "the target of the request is not a path")
            http.next_event()  # EndOfMessage
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if status == 431 and b"\n" not in http.trailing_data[0]:
                status = 414
            return _refusal(status, _MALFORMED if status == 400 else _REASONS[status])
        return request

    def _request(self, event: h11.Request) -> Request:
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        target = _TARGET.fullmatch(event.target.decode("ascii"))
        path, query = target.groups("") if target else ("", "")
        if target and not path:
            path = "/"  # http://host
        return Request(event.method.decode("ascii"), unquote(path), query, headers, self.address)

    def _receive(self) -> bytes:
        """Return what has come. One byte more than the limit is enough for h11 to refuse a request."""
        wanted = HEADER_LIMIT + 1 - self._buffered()
        if self.tls is not None:
            data = self.tls.receive(self.socket, wanted)
        else:
            try:
                data = self.socket.recv(wanted)
            except BlockingIOError:
                raise WouldBlock(to_write=False) from None
        if not data:
            raise ConnectionResetError
        if self._rests:
            self._rests = False
            self._wait(Phase.REQUEST, self._service.timeout)
        return data

    def _buffered(self) -> int:
        """Return how many bytes of the next requests have come."""
        return len(self._http.trailing_data[0])

    def _answer(self, response: Response) -> None:
        """Begin an answer. h11 writes its head and counts the bytes of its body, which is sent as it is."""
        length = size(response.body)
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())  # the exporter never sets a locale
        headers = [*response.headers, ("Content-Length", str(length)), ("Server", "bpf-exporter"), ("Date", date)]
        if self._service.ending:
            headers.append(("Connection", "close"))
        reason = _REASONS[response.status]
        head = self._http.send(h11.Response(status_code=response.status, reason=reason, headers=headers))
        if not self._is_head:
            self.page = response.body
            self._http.send_with_data_passthrough(h11.Data(range(length)))  # type: ignore[arg-type] # only len() is used
        self._http.send(h11.EndOfMessage())
        self._chunks = _together([head], self.page)

    def _push(self) -> None:
        """Send the whole answer. WouldBlock if the client has to take some of it first; OSError if it has left."""
        while True:
            if not self._chunk:
                following = next(self._chunks, None)
                if following is None:
                    self.page = ()
                    return
                self._chunk = memoryview(following)
            if self.tls is not None:
                sent = self.tls.send(self.socket, self._chunk)
            else:
                try:
                    sent = self.socket.send(self._chunk)
                except BlockingIOError:
                    raise WouldBlock(to_write=True) from None
            self._chunk = self._chunk[sent:]

    def _rest(self) -> int:
        """Wait for the next request. One that has come already waits behind those of other clients: epoll(7) reports a
        writable socket at once."""
        self._http.start_next_cycle()
        came = self._buffered() > 0
        self._rests = not came
        self._wait(Phase.REQUEST, self._service.timeout if came else self._service.rest_timeout)
        self.progress = Progress.GREETED
        more = came or (self.tls is not None and self.tls.has_more(self.socket))
        return select.EPOLLIN | select.EPOLLOUT if more else select.EPOLLIN

    def _end(self) -> int | None:
        """Send the end of data, and wait for that of the client. If close(2) found unread data it would reset the
        connection, and the client could lose the answer: what still comes is read and thrown away."""
        if self.tls is not None:
            self.tls.close(self.socket)
        self.socket.shutdown(socket.SHUT_WR)
        self._wait(Phase.LINGERING, LINGERS)
        return self._linger()

    def _linger(self) -> int | None:
        """Read a little at a time: a client that sends faster than this reads must not hold the thread."""
        try:
            if not socket.socket.recv(self.socket, RECEIVED):  # below TLS
                return None
        except BlockingIOError:
            pass
        return select.EPOLLIN if time.monotonic() < self.until else None

    def close(self) -> None:
        with suppress(OSError):  # the client was faster
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _refusal(status: int, text: str) -> Response:
    return text_response(status, text, ("Connection", "close"))


def _together(together: list[Piece], pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join small pieces, and yield large ones as they are."""
    length = 0
    for piece in pieces:
        together.append(piece)
        length += len(piece)
        if length >= SEND:
            yield b"".join(together) if len(together) > 1 else together[0]
            together, length = [], 0
    if together:
        yield b"".join(together)
