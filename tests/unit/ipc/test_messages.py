"""Bytes and descriptors through a real socket pair."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from exporter.ipc import messages


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = messages.pair()
    with left, right:
        yield left, right


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_content_larger_than_a_packet_arrives_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    content = b"x" * 3_000_000
    messages.send(ends[0], content)
    assert messages.receive(ends[1]) == (content, [])


@pytest.mark.parametrize("count", [1, 253, 254, 600])
def test_any_number_of_descriptors_arrives_in_order(ends: tuple[socket.socket, socket.socket], count: int) -> None:
    files = [os.memfd_create(f"n{i}") for i in range(count)]
    try:
        messages.send(ends[0], b"content", files)
        received = messages.receive(ends[1])
        assert received is not None
        content, fds = received
        assert content == b"content"
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]
        assert names == [f"/memfd:n{i} (deleted)" for i in range(count)]
        assert not any(os.get_inheritable(fd) for fd in fds)
        for fd in fds:
            os.close(fd)
    finally:
        for fd in files:
            os.close(fd)


def test_the_end_of_the_stream_is_none(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    assert messages.receive(ends[1]) is None


def test_sending_to_a_dead_peer_raises_and_leaks_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].close()
    before = open_fds()
    with pytest.raises(OSError, match="Broken pipe"):
        messages.send(ends[0], b"")
    assert open_fds() == before


@pytest.mark.parametrize("packet", [b"hello", b"bpfx\x02\0\0\0\0\0\0\0", b"x" * 5000])
def test_a_foreign_packet_is_refused_and_its_descriptors_are_closed(
    ends: tuple[socket.socket, socket.socket], packet: bytes
) -> None:
    before = open_fds()
    with open("/dev/null") as null:
        socket.send_fds(ends[0], [packet], [null.fileno()])
    with pytest.raises(messages.ProtocolError):
        messages.receive(ends[1])
    assert open_fds() == before


def test_missing_descriptors_are_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    memfd = os.memfd_create("d")
    os.write(memfd, b"{}")
    socket.send_fds(ends[0], [b"bpfx\x01\0\0\0\x05\0\0\0"], [memfd])
    os.close(memfd)
    ends[0].close()
    before = open_fds()
    with pytest.raises(messages.ProtocolError, match="0 of 5 descriptors"):
        messages.receive(ends[1])
    assert open_fds() == before
