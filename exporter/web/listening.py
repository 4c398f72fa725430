"""Listening sockets from addresses such as ":10435"."""

from __future__ import annotations

import errno
import os
import socket

from exporter import listen_fds

BACKLOG = 128  # connections that wait to be taken


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


def passed() -> list[socket.socket]:
    """The sockets that the service manager listens on for this process. AddressError if there are none."""
    sockets = [socket.socket(fileno=fd) for _, fd in listen_fds.take()]
    if not sockets:
        raise AddressError("--web.systemd-socket: no socket was passed (start the service by its .socket unit)")
    for sock in sockets:
        sock.setblocking(True)
    return sockets


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
