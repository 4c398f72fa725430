"""Documents and file descriptors over a Unix socket: loader to supervisor, supervisor to server.

One message is several SEQPACKET packets: a header that says how many descriptors follow and carries a sealed memfd with
the JSON document (a SEQPACKET packet of 300 kB is refused by the kernel), then the descriptors in chunks, because one
SCM_RIGHTS message holds at most SCM_MAX_FD of them (include/net/scm.h; unix(7)).
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

VERSION = 1
SCM_MAX_FD = 253
DOCUMENT_LIMIT = 64 << 20  # bytes; a program with its layouts is some 20 kB

_HEADER = struct.Struct("<4sII")  # magic, version, number of descriptors after the document
_MAGIC = b"bpfx"
_MORE = b"fds"

F_ADD_SEALS = 1033  # include/uapi/linux/fcntl.h; the module fcntl has the names from Python 3.8 on only where libc does
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8


class ProtocolError(Exception):
    """The peer sent something that is not a message of this version."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends for `send` and `receive`."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, document: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one document and the descriptors that belong to it; the caller keeps and closes its own copies.

    OSError if the peer is gone.
    """
    memfd = sealed(document)
    try:
        socket.send_fds(sock, [_HEADER.pack(_MAGIC, VERSION, len(fds))], [memfd], socket.MSG_NOSIGNAL)
    finally:
        os.close(memfd)
    for start in range(0, len(fds), SCM_MAX_FD):
        socket.send_fds(sock, [_MORE], list(fds[start : start + SCM_MAX_FD]), socket.MSG_NOSIGNAL)


def sealed(document: Mapping[str, Any]) -> int:
    """A descriptor of the document that nobody can change; for `read_document`, and the caller's to close."""
    memfd = os.memfd_create("document", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(memfd, "wb", closefd=False) as stream:
            stream.write(json.dumps(document, separators=(",", ":")).encode())
        fcntl.fcntl(memfd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next document and its descriptors (close-on-exec, the caller's to close), or None at the end of the stream.

    ProtocolError for anything else than a message of this version; descriptors that came with it are closed.
    """
    data, fds = _receive_packet(sock, _HEADER.size, 1)
    if not data and not fds:
        return None
    try:
        if len(data) != _HEADER.size or len(fds) != 1:
            raise ProtocolError(f"a header of {len(data)} bytes and {len(fds)} descriptors")
        magic, version, expected = _HEADER.unpack(data)
        if magic != _MAGIC or version != VERSION:
            raise ProtocolError(f"message {magic!r} of version {version}, expected {_MAGIC!r} of version {VERSION}")
        memfd = fds.pop()
        try:
            document = read_document(memfd)
        finally:
            os.close(memfd)
        while len(fds) < expected:
            data, more = _receive_packet(sock, len(_MORE), SCM_MAX_FD)
            fds += more
            if data != _MORE or not more:
                raise ProtocolError(f"{len(fds)} of {expected} descriptors came")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return document, fds


def _receive_packet(sock: socket.socket, size: int, max_fds: int) -> tuple[bytes, list[int]]:
    # Not socket.recv_fds: up to Python 3.12 it drops its `flags`, and the descriptors would leak into every child.
    data, ancillary, flags, _ = sock.recvmsg(size + 1, socket.CMSG_LEN(max_fds * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) // 4 * 4])
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        for fd in fds:
            os.close(fd)
        raise ProtocolError("a packet was cut: too many descriptors open here, or a foreign peer")
    return data, list(fds)


def read_document(memfd: int) -> dict[str, Any]:
    """What was given to `sealed`. ProtocolError for anything else; the descriptor stays open."""
    try:
        size = os.fstat(memfd).st_size
        if size > DOCUMENT_LIMIT:
            raise ProtocolError(f"a document of {size} bytes, more than {DOCUMENT_LIMIT}")
        document = json.loads(os.pread(memfd, size, 0))
    except ValueError as error:
        raise ProtocolError(f"a document that is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ProtocolError("a document that is not an object")
    return document
