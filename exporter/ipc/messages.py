"""Bytes and file descriptors over a Unix socket; protocol.py gives the bytes their meaning.

One message is several SEQPACKET packets: a header that says how many descriptors follow and carries a sealed memfd with
the content (a SEQPACKET packet of 300 kB is refused by the kernel), then the descriptors in chunks, because one
SCM_RIGHTS message holds at most SCM_MAX_FD of them (include/net/scm.h; unix(7)).
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence

from exporter.kernel import memfd

SCM_MAX_FD = 253
CONTENT_LIMIT = 64 << 20  # bytes; a program with its layouts is some 20 kB

_HEADER = struct.Struct("<4sII")  # magic, version of this framing, number of descriptors after the content
_MAGIC = b"bpfx"
_VERSION = 1
_MORE = b"fds"


class ProtocolError(Exception):
    """The peer sent something that is not a message of this version.

    program  the name of the program that the message describes, "" where it has none; None for any other message
    """

    def __init__(self, text: str, program: str | None = None) -> None:
        super().__init__(text)
        self.program = program


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends for `send` and `receive`."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, content: bytes, fds: Sequence[int] = ()) -> None:
    """Send the content and the descriptors that belong to it; the caller keeps and closes its own copies.

    OSError if the peer is gone.
    """
    fd = memfd.of_content("message", content)
    try:
        socket.send_fds(sock, [_HEADER.pack(_MAGIC, _VERSION, len(fds))], [fd], socket.MSG_NOSIGNAL)
    finally:
        os.close(fd)
    for start in range(0, len(fds), SCM_MAX_FD):
        socket.send_fds(sock, [_MORE], list(fds[start : start + SCM_MAX_FD]), socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return the next content and its descriptors (close-on-exec, the caller's to close); None: the stream ended.

    ProtocolError for anything else than a message of this version; descriptors that came with it are closed.
    """
    data, fds = _receive_packet(sock, _HEADER.size, 1)
    if not data and not fds:
        return None
    try:
        if len(data) != _HEADER.size or len(fds) != 1:
            raise ProtocolError(f"a header of {len(data)} bytes and {len(fds)} descriptors")
        magic, version, expected = _HEADER.unpack(data)
        if magic != _MAGIC or version != _VERSION:
            raise ProtocolError(f"message {magic!r} of version {version}, expected {_MAGIC!r} of version {_VERSION}")
        fd = fds.pop()
        try:
            content = read(fd)
        finally:
            os.close(fd)
        while len(fds) < expected:
            data, more = _receive_packet(sock, len(_MORE), SCM_MAX_FD)
            fds += more
            if data != _MORE or not more:
                raise ProtocolError(f"{len(fds)} of {expected} descriptors came")
    except BaseException:
        close(fds)
        raise
    return content, fds


def read(fd: int) -> bytes:
    """Return the whole of a file in memory. ProtocolError where it is too large; the descriptor stays open."""
    size = os.fstat(fd).st_size
    if size > CONTENT_LIMIT:
        raise ProtocolError(f"a message of {size} bytes, more than {CONTENT_LIMIT}")
    return os.pread(fd, size, 0)


def close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _receive_packet(sock: socket.socket, size: int, max_fds: int) -> tuple[bytes, list[int]]:
    # Not socket.recv_fds: up to Python 3.12 it drops its `flags`, and the descriptors would leak into every child.
    data, ancillary, flags, _ = sock.recvmsg(size + 1, socket.CMSG_LEN(max_fds * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) // 4 * 4])
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        close(fds)
        raise ProtocolError("a packet was cut: too many descriptors open here, or a foreign peer")
    return data, list(fds)
