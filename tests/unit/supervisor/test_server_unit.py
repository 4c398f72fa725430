"""The socket between two units: who gets it, what is in its place, and a second server that holds nobody up."""

from __future__ import annotations

import os
import selectors
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.ipc import protocol
from exporter.ipc.protocol import Message, ProgramList, ToServer
from exporter.supervisor import server_unit
from exporter.supervisor.server_forked import SEND_TIMEOUT
from exporter.supervisor.server_unit import ServerConnection, listen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "supervisor.sock"


@pytest.fixture
def listener(path: Path) -> Iterator[socket.socket]:
    with listen(path, os.getgid()) as sock:
        yield sock


def received(sock: socket.socket) -> Message | None:
    message = protocol.receive(sock, ToServer)
    return None if message is None else message[0]


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(30)
    sock.connect(str(path))
    return sock


class Supervising:
    """A connection and its loop; greets with the number of servers before."""

    def __init__(self, listener: socket.socket, uid: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.connection = ServerConnection(listener, uid, self.selector, self._greet)

    def _greet(self, before: int) -> None:
        self.connection.send(ProgramList((), following=before))

    def turn(self) -> None:
        for key, _ in self.selector.select(5):
            key.data()


def test_the_socket_is_for_its_group_and_nobody_else(listener: socket.socket, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == server_unit.MODE
    assert stat.S_IMODE(path.parent.stat().st_mode) == server_unit.DIRECTORY_MODE


def test_what_a_dead_supervisor_left_is_replaced(path: Path) -> None:
    listen(path, os.getgid()).close()
    assert path.exists()
    with listen(path, os.getgid()):
        connect(path).close()


def test_a_living_supervisor_is_left_alone(listener: socket.socket, path: Path) -> None:
    with pytest.raises(OSError, match="another supervisor listens there"):
        listen(path, os.getgid())
    connect(path).close()


def test_a_second_server_is_refused_at_once_and_a_dead_one_replaced(listener: socket.socket, path: Path) -> None:
    supervising = Supervising(listener, os.getuid())
    first = connect(path)
    supervising.turn()
    assert received(first) == ProgramList(())
    began = time.monotonic()
    with connect(path) as second:
        supervising.turn()
        assert received(second) is None
    assert time.monotonic() - began < SEND_TIMEOUT / 2  # the loop was not held up
    protocol.send_ready(first)  # unread words do not make it look alive
    first.close()
    with connect(path) as third:
        supervising.turn()
        assert received(third) == ProgramList(())  # the same process: it has only connected again


def test_a_server_that_goes_on_talking_is_let_go(listener: socket.socket, path: Path) -> None:
    """One that was taken over would keep the supervisor's loop turning."""
    supervising = Supervising(listener, os.getuid())
    with connect(path) as server:
        supervising.turn()
        assert received(server) == ProgramList(())
        protocol.send_ready(server)
        supervising.turn()
        supervising.connection.send(ProgramList(("still here",)))
        assert received(server) == ProgramList(("still here",))
        protocol.send_ready(server)
        supervising.turn()
        assert received(server) is None


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (b"hello", "JSONDecodeError"),
        (b"[" * 60, "JSONDecodeError"),
        (b'{"version":3,"kind":"ready"}', "protocol version 3, expected 2"),
        (b'{"version":2,"kind":"steady"}', "unknown message kind 'steady'"),
        (b'{"version":2,"kind":"web","settings":null}', "message kind web is not for this process"),
        (b'{"version":2,"kind":"ready","and":"more"}', "ValueError: Ready: no field and"),
    ],
)
def test_a_server_whose_message_is_refused_is_let_go(
    listener: socket.socket, path: Path, logged: Callable[[], list[str]], packet: bytes, error: str
) -> None:
    supervising = Supervising(listener, os.getuid())
    with connect(path) as server:
        supervising.turn()
        assert received(server) == ProgramList(())
        with open("/dev/null") as null:  # its descriptor is dropped by the kernel
            before = len(os.listdir("/proc/self/fd"))
            socket.send_fds(server, [packet], [null.fileno()])
            supervising.turn()
            assert len(os.listdir("/proc/self/fd")) < before  # the connection is closed, and no descriptor came
        assert received(server) is None
    (line,) = [line for line in logged() if "refused" in line]
    assert error in line
