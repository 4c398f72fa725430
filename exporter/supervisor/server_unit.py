"""The server as the supervisor sees it where each is a unit of its own: a process that connects and is told.

The other form is server_forked.py. The socket is a SEQPACKET one (ipc/messages.py). Who may connect is said by its
mode, and checked by the uid that the kernel gives (SO_PEERCRED, unix(7)). There is one server at a time: a living one
stays, because two would write into the same totals; a dead one is replaced.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter import log
from exporter.ipc import protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import ToServer
from exporter.supervisor.server_forked import SEND_TIMEOUT, Greet

MODE = 0o660
DIRECTORY_MODE = 0o750
BACKLOG = 8
_UCRED = struct.Struct("iII")  # pid, uid, gid (include/linux/socket.h)


def listen(path: Path, group: int) -> socket.socket:
    """The socket that servers connect to, open to this group alone. OSError with a sentence if it cannot be had."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if _answers(path):
            raise OSError(errno.EADDRINUSE, "another supervisor listens there")
        path.unlink(missing_ok=True)  # what one before us left
        before = os.umask(0o777 & ~MODE)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        for made in (path.parent, path):
            if made.stat().st_uid == os.geteuid() and made.stat().st_gid != group:
                os.chown(made, -1, group)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


class ServerConnection:
    """Waits for a server and tells it.

    listener  where it connects
    uid       the user that it must be
    greet     is called with how many servers there were before, for each that has come: tells it everything
    """

    announces_itself = True
    ready = True  # the socket is there: whoever waits for the supervisor can connect

    def __init__(self, listener: socket.socket, uid: int, selector: selectors.BaseSelector, greet: Greet) -> None:
        self._listener = listener
        self._uid = uid
        self._selector = selector
        self._greet = greet
        self._sock: socket.socket | None = None
        self._ready = False  # whether it has said so
        self._pid = 0  # of the last server
        self._servers = 0
        selector.register(listener, selectors.EVENT_READ, self._on_connection)

    @classmethod
    def of(cls, listener: socket.socket, uid: int) -> Callable[[selectors.BaseSelector, Greet], ServerConnection]:
        """What a Supervisor makes its server by."""
        return lambda selector, greet: cls(listener, uid, selector, greet)

    def due(self) -> list[float]:
        return []

    def work(self) -> None:
        """Nothing by itself: the service manager starts servers."""

    def send(self, message: ToServer, fds: Sequence[int] = ()) -> None:
        """Send a message. Nothing happens where no server is connected: the next one is told everything."""
        if self._sock is None:
            return
        try:
            protocol.send(self._sock, message, fds)
        except OSError as error:
            log.get().warning("the server does not take messages: it has to connect again", error=str(error))
            self._forget()

    def ask_to_end(self) -> None:
        """The service manager does that."""

    def end(self) -> None:
        """The server goes on with what it has, and looks for the next supervisor at the same place."""
        if self._sock is not None:
            self._forget()
        self._selector.unregister(self._listener)
        self._listener.close()

    def _on_connection(self) -> bool:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has gone again, or there is no descriptor left
            return False
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in (0, self._uid):  # one that was started as root drops its rights when it has been greeted
            log.get().warning("refused a connection", uid=uid, pid=pid, error=f"the server's user is {self._uid}")
            sock.close()
            return False
        if self._sock is not None and not _has_ended(self._sock):
            log.get().warning("refused a second server", pid=pid, error=f"process {self._pid} is connected and lives")
            sock.close()
            return False
        if self._sock is not None:
            self._forget()
        self._sock, self._ready = sock, False
        sock.settimeout(SEND_TIMEOUT)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._on_message(sock))
        self._servers += pid != self._pid
        self._pid = pid
        log.get().info("server connected", pid=pid)
        self._greet(self._servers - 1)
        return False

    def _on_message(self, sock: socket.socket) -> bool:
        """The server is ready, or ended. It sends one message: one that goes on must not keep this loop turning."""
        if sock is not self._sock:
            return False  # it was disconnected in this round of the loop
        message, error = None, ""
        try:
            message = protocol.receive_ready(sock)
        except OSError:
            pass
        except ProtocolError as reason:
            error = str(reason)
        if message is not None and self._ready:
            error = "a second message, where one is expected"
        if error:
            log.get().warning("the server's message was refused: it has to connect again", pid=self._pid, error=error)
        elif message is None:
            log.get().warning("the server is gone: the kernel goes on counting until the next connects", pid=self._pid)
        if error or message is None:
            self._forget()
        self._ready = True
        return False

    def _forget(self) -> None:
        assert self._sock is not None
        self._selector.unregister(self._sock)
        self._sock.close()
        self._sock = None


def _has_ended(sock: socket.socket) -> bool:
    """Whether the other end is closed; it may have sent something before. Without waiting, whatever its timeout is."""
    poll = select.poll()
    poll.register(sock, select.POLLHUP)
    return bool(poll.poll(0))
