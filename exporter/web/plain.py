"""Requests as every scraper makes them -> what an application is asked with (PEP 3333), without the general parser.

A GET or HEAD that has come whole, with no body and no header that means more than its text. Everything else is left in
the socket for cheroot, which knows the rest of HTTP/1.1 and every way to get it wrong; so what is refused here is not
refused, only slower.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

LONGEST = 4096  # bytes of a request; a scraper's takes 300
_KNOWN = 16  # requests: a scraper sends the same one again and again

# RFC 9112, 3 and 5; of a target only the characters that stand for themselves. No header name with "_": in the
# environment it would be the same as one with "-".
_REQUEST = re.compile(
    rb"(GET|HEAD) (/[A-Za-z0-9/._~-]*)(?:\?([!\"$-~]*))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ -~\t]*\r\n)+)\r\n"
)
_MEAN_MORE = {"CONTENT-LENGTH", "TRANSFER-ENCODING", "EXPECT", "UPGRADE", "TE", "TRAILER"}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Request:
    """`environ`: method, path, query and headers. `size`: bytes that it takes in the socket."""

    environ: MappingProxyType[str, str]
    size: int

    @property
    def closes(self) -> bool:
        """Whether the client wants the connection to end with the answer."""
        return self.environ.get("HTTP_CONNECTION", "").lower() == "close"


def waiting(sock: socket.socket) -> Request | None:
    """The request that is in a socket that has something to read, and left there; None for anything else."""
    return parsed(sock.recv(LONGEST + 1, socket.MSG_PEEK))


@lru_cache(_KNOWN)
def parsed(text: bytes) -> Request | None:
    """None unless the text is one such request from its first byte to its last."""
    match = _REQUEST.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        return None
    method, path, query, lines = (each.decode("ascii") for each in match.groups(b""))
    headers = [_header(line) for line in lines.split("\r\n")[:-1]]
    values = dict(headers)
    if len(values) < len(headers) or "HOST" not in values or not _MEAN_MORE.isdisjoint(values):
        return None
    if values.get("CONNECTION", "close").lower() not in ("close", "keep-alive"):
        return None
    environ = {"HTTP_" + name.replace("-", "_"): value for name, value in headers}
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SERVER_PROTOCOL": "HTTP/1.1"}
    return Request(MappingProxyType(environ), len(text))


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.upper(), value.strip(" \t")


def head(status: str, headers: Iterable[tuple[str, str]], *, closes: bool) -> bytes:
    """The answer up to its body. `closes`: and the connection after it."""
    lines = [f"HTTP/1.1 {status}", *map(": ".join, headers), f"Date: {_date(int(time.time()))}"]
    if closes:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _date(now: int) -> str:
    """As RFC 9110, 5.6.7 has it, whatever the locale."""
    year, month, day, hour, minute, second, weekday = time.gmtime(now)[:7]
    return f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year} {hour:02d}:{minute:02d}:{second:02d} GMT"
