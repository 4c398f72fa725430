"""Listening sockets from addresses such as ":10435", and a bounded HTTP server on each."""

from __future__ import annotations

import os
import socket
from typing import Any

from cheroot import wsgi

from exporter import log

THREADS = 8  # scrapes share one collection; more threads would only wait for its lock
QUEUED = 32  # accepted connections waiting for a thread
BACKLOG = 128
TIMEOUT = 10  # seconds that a client may take between two bytes
HEADER_LIMIT = 16 << 10  # bytes
BODY_LIMIT = 4 << 10  # bytes; no request has one


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
        return socket.create_server(where[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        hint = " (another process listens there: see `ss -ltnp`)" if error.errno == 98 else ""
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


class Server(wsgi.Server):  # type: ignore[misc, unused-ignore]
    """cheroot's WSGI server on a socket that is already bound, every resource bounded."""

    def __init__(self, sock: socket.socket, application: Any) -> None:
        super().__init__(
            sock.getsockname()[:2],
            application,
            numthreads=2,
            max=THREADS,
            request_queue_size=BACKLOG,
            timeout=TIMEOUT,
            accepted_queue_size=QUEUED,
            accepted_queue_timeout=TIMEOUT,
        )
        self._bound = sock
        self.software = "bpf-exporter"
        self.max_request_header_size = HEADER_LIMIT
        self.max_request_body_size = BODY_LIMIT

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002, ARG002 - cheroot's names
        self.socket = self._bound
        return self._bound

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002
        log.get().log(level, "http server: " + msg.strip().splitlines()[0] if msg.strip() else "http server error")
