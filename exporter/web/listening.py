"""Listening sockets from addresses such as ":10435" and "unix:/run/bpf-exporter/metrics.sock"."""

from __future__ import annotations

import errno
import grp
import os
import re
import socket
import stat
from collections.abc import Sequence
from urllib.parse import parse_qsl

from exporter.systemd import take_fds

BACKLOG = 1024  # connections that wait for accept(2): a crowd that comes at once must not push others out (tcp(7))
UNIX_MODE = 0o666  # whoever can connect there could also connect to a port of loopback


class AddressError(ValueError):
    """A listen address that is malformed or cannot be used; the text says which and why."""


def listen(address: str) -> socket.socket:
    """Return a socket that listens on "HOST:PORT", "[IPV6]:PORT" or ":PORT" (IPv4 and IPv6), or on the path of
    "unix:PATH?mode=0660&group=GROUP". AddressError."""
    if address.startswith("unix:"):
        return _listen_unix(address)
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise AddressError(f'listen address "{address}": expected HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH')
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise AddressError(f'listen address "{address}": write an IPv6 address in brackets, "[{host}]:{port}"')
    host = host.strip("[]")
    try:
        if not host and socket.has_dualstack_ipv6():
            sock = socket.create_server(("", int(port)), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        else:
            family, _, _, _, bound = socket.getaddrinfo(
                host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]  # the whole tuple: a link-local address needs its interface
            sock = socket.create_server(bound, family=family, backlog=BACKLOG)
    except OSError as error:
        hint = " (another process listens there: see `ss -ltnp`)" if error.errno == errno.EADDRINUSE else ""
        raise AddressError(f'listen address "{address}": {_cause(error)}{hint}') from error
    return _without_delay(sock)


def passed() -> list[socket.socket]:
    """Return the sockets that the service manager listens on for this process. AddressError if there are none."""
    taken = [_inherited(fd) for _, fd in take_fds()]
    if not taken:
        raise AddressError("--web.systemd-socket: no socket was passed (start the service by its .socket unit)")
    return taken


def sockets(addresses: Sequence[str], *, from_service_manager: bool) -> list[socket.socket]:
    """Return the sockets of the service manager, or one for each address. AddressError."""
    return passed() if from_service_manager else [listen(address) for address in addresses]


def _without_delay(sock: socket.socket) -> socket.socket:
    """Set TCP_NODELAY, which connections inherit. Without it the last part of an answer waits until the client
    acknowledges the parts before, which it puts off for 40 ms (tcp(7))."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _cause(error: OSError) -> str:
    """Return the text of an error without what create_server adds; getaddrinfo has its own error numbers and texts."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror or error)
    return os.strerror(error.errno)


def _listen_unix(address: str) -> socket.socket:
    path, _, options = address.removeprefix("unix:").partition("?")
    path = re.sub("^//+", "/", path)
    if not path.startswith("/"):
        raise AddressError(f'listen address "{address}": expected unix:PATH with an absolute path')
    mode, group = _permissions(address, options)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _remove_stale(path)
        before = os.umask(0o777)  # nobody connects before owner and mode are set
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        os.chown(path, -1, group, follow_symlinks=False)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = " (another process listens there: see `ss -lxp`)" if error.errno == errno.EADDRINUSE else ""
        hint = " (a file is there, and no socket: remove it)" if error.errno == errno.ENOTSOCK else hint
        raise AddressError(f'listen address "{address}": {error.strerror or error}{hint}') from error
    return sock


def _permissions(address: str, options: str) -> tuple[int, int]:
    """Return mode and group of the socket; -1 for the group that it has."""
    mode, group = UNIX_MODE, -1
    for key, value in parse_qsl(options, keep_blank_values=True):
        if key == "mode" and re.fullmatch("0?[0-7]{3}", value):
            mode = int(value, 8)
        elif key == "group":
            try:
                group = int(value) if value.isdecimal() else grp.getgrnam(value).gr_gid
            except KeyError:
                raise AddressError(f'listen address "{address}": no group "{value}" here') from None
        else:
            raise AddressError(f'listen address "{address}": after "?" write mode=0660, group=NAME or both with "&"')
    return mode, group


def _remove_stale(path: str) -> None:
    """Remove the socket of an earlier process if nobody listens on it. OSError if it is something else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _inherited(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise AddressError(f"--web.systemd-socket: descriptor {fd}: {error.strerror or error}") from error
    if not listens:
        raise AddressError(f"--web.systemd-socket: descriptor {fd} does not listen (ListenStream=, Accept=no)")
    return _without_delay(sock)


def url(sock: socket.socket, path: str = "", *, secure: bool = False) -> str:
    """Return the URL of a listening socket, as seen from this host."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    if host in ("::", "0.0.0.0"):
        host = "localhost"
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{'https' if secure else 'http'}://{authority}{path}"


def remove(sock: socket.socket) -> None:
    """Remove the file of a socket that `listen` made."""
    if sock.family == socket.AF_UNIX:
        try:
            os.unlink(sock.getsockname())
        except OSError:
            return
