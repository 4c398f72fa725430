"""The map of listening ports, seeded from this host's own sockets."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from exporter.kernel import bpf
from exporter.kernel.features import Kernel
from exporter.loading.refusal import RefusedError
from exporter.loading.seed import reconcile
from exporter.program import Map, Reason

LAYOUT = Map("listening", bpf.BPF_MAP_TYPE_HASH, 2, 4, 65536)


@pytest.fixture
def listening() -> Iterator[int]:
    fd = bpf.map_create(LAYOUT.type, LAYOUT.key_size, LAYOUT.value_size, LAYOUT.max_entries, 0, LAYOUT.name)
    yield fd
    os.close(fd)


def listeners(fd: int, port: int) -> int | None:
    value = bpf.map_lookup(fd, struct.pack("=H", port), 4)
    return None if value is None else struct.unpack("=I", value)[0]


def seed(fd: int) -> None:
    reconcile("listening_ports", LAYOUT, fd, Kernel())


def test_every_listening_socket_is_counted_by_its_port(listening: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket() as second:
        port = first.getsockname()[1]
        second.bind(("127.0.0.2", port))
        seed(listening)
        assert listeners(listening, port) == 1, "bound, but it does not listen yet"
        second.listen()
        seed(listening)
        assert listeners(listening, port) == 2


def test_port_that_nobody_listens_on_any_more_goes(listening: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        seed(listening)
        assert listeners(listening, port) == 1
    seed(listening)
    assert listeners(listening, port) is None


def test_count_that_is_wrong_is_put_right(listening: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        bpf.map_update(listening, struct.pack("=H", port), struct.pack("=I", 77))
        seed(listening)
        assert listeners(listening, port) == 1


def test_port_left_at_zero_by_the_program_is_no_difference(listening: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    bpf.map_update(listening, struct.pack("=H", port), struct.pack("=I", 0))
    seed(listening)
    assert listeners(listening, port) == 0


def test_map_that_is_too_small_is_refused_by_name() -> None:
    fd = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 2, 4, 1)
    try:
        with (
            socket.create_server(("127.0.0.1", 0)),
            socket.create_server(("127.0.0.1", 0)),
            pytest.raises(RefusedError, match=r"^seed listening: ") as refusal,
        ):
            seed(fd)
        assert refusal.value.reason is Reason.MAP
    finally:
        os.close(fd)


def test_map_of_another_shape_is_refused_with_the_line_to_write(listening: int) -> None:
    wide = Map("ports", bpf.BPF_MAP_TYPE_HASH, 4, 8, 10)
    with pytest.raises(RefusedError) as refusal:
        reconcile("listening_ports", wide, listening, Kernel())
    assert refusal.value.reason is Reason.BINDING
    assert refusal.value.text == (
        "seed ports: listening_ports needs a hash of u16 port to u32 count, as BPF_HASH(ports, u16, u32)"
    )
