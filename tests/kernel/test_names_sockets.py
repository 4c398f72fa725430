"""Listening ports of this host over its network namespaces."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from exporter.kernel.sockets import listening_ports

LISTEN = """
import socket, sys
port = int(sys.argv[1])
sockets = []
for family in (socket.AF_INET, socket.AF_INET6):
    s = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(("", port))
    s.listen()
    sockets.append(s)
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port() -> Iterator[int]:
    """A port that one socket of this namespace is bound to and does not listen on, so that nobody else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_listeners_of_another_network_namespace_are_found_until_they_end(port: int) -> None:
    assert port not in listening_ports()
    command = ["unshare", "--net", sys.executable, "-c", LISTEN, str(port)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "listening\n"
        assert listening_ports()[port] == 2  # IPv4 and IPv6
    finally:
        child.communicate()
    assert port not in listening_ports()


def test_listener_shared_by_many_processes_of_a_namespace_counts_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listening_ports()[server.getsockname()[1]] == 1


def test_connected_sockets_are_no_listeners() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        local = client.getsockname()[1]
        assert local not in listening_ports()
