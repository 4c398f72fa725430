"""The server as a unit of its own: a process that connects to the supervisor's socket.

The other form is server_forked.py. The socket is a SEQPACKET one (ipc/messages.py). Its mode says who may
connect, and the supervisor checks the uid that the kernel gives (SO_PEERCRED, unix(7)). There is one server at a time:
a living one stays, because two would write into the same totals; a dead one is replaced.
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
    """Return the socket that servers connect to, open to this group alone. OSError with a sentence otherwise."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if _answers(path):
            raise OSError(errno.EADDRINUSE, "another supervisor listens there")
        path.unlink(missing_ok=True)  # of an earlier supervisor
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
    """Waits for a server and sends it messages.

    listener  where it connects
    uid       the user that it must be
    greet     is called with how many servers there were before, for each that connects: sends it everything
    """

    announces_itself = True
    ready = True  # the socket is there: whoever waits for the supervisor can connect

    def __init__(self, listener: socket.socket, uid: int, selector: selectors.BaseSelector, greet: Greet) -> None:
        self._listener = listener
        self._uid = uid
        self._selector = selector
        self._greet = greet
        self._sock: socket.socket | None = None
        self._ready = False  # the connected server has sent Ready
        self._pid = 0  # of the last server
        self._servers = 0
        selector.register(listener, selectors.EVENT_READ, self._on_connection)

    @classmethod
    def of(cls, listener: socket.socket, uid: int) -> Callable[[selectors.BaseSelector, Greet], ServerConnection]:
        """Return what a Supervisor makes its server with."""
        return lambda selector, greet: cls(listener, uid, selector, greet)

    def due(self) -> list[float]:
        return []

    def work(self) -> None:
        """Do nothing: the service manager starts servers."""

    def send(self, message: ToServer, fds: Sequence[int] = ()) -> None:
        """Send a message. Nothing happens where no server is connected: the next one gets all messages."""
        if self._sock is None:
            return
        try:
            protocol.send(self._sock, message, fds)
        except OSError as error:
            log.get().warning("the server does not receive messages: it has to connect again", error=str(error))
            self._forget()

    def ask_to_end(self) -> None:
        """Do nothing: the service manager ends the server."""

    def end(self) -> None:
        """Disconnect. The server goes on with its maps, and connects to the next supervisor at the same path."""
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
    """Return whether the other end is closed, without waiting; it may have sent something before."""
    poll = select.poll()
    poll.register(sock, select.POLLHUP)
    return bool(poll.poll(0))
