"""IP traffic of known amount in network namespaces: lost segments, waiting connections, ICMP, fragments."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kernel.workloads import namespaces
from tests.peer.workloads import counters

LOOPBACK = {"ipv4": "127.0.0.1", "ipv6": "::1"}
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
CLIENT = {"ipv4": "10.98.0.1", "ipv6": "fd00:98::1", "ethernet": "02:00:00:00:00:01"}
SERVER = {"ipv4": "10.98.0.2", "ipv6": "fd00:98::2", "ethernet": "02:00:00:00:00:02"}
DEVICE = "cable"
NOBODY = "02:00:00:00:00:99"  # no device has it: what is sent there is carried over and thrown away


@contextmanager
def cable(name: str) -> Iterator[tuple[str, str]]:
    """Names of two namespaces joined by a veth pair: client's and server's, who know each other's addresses."""
    client, server = f"{name}c", f"{name}s"
    with namespaces.namespace(client), namespaces.namespace(server):
        _do(f"ip link add {DEVICE} netns {client} type veth peer name {DEVICE} netns {server}")
        namespaces.call(client, _configure, CLIENT, SERVER)
        namespaces.call(server, _configure, SERVER, CLIENT)
        yield client, server


def _configure(own: dict[str, str], other: dict[str, str]) -> None:
    _do(f"ip link set {DEVICE} address {own['ethernet']}")
    _do(f"ip address add {own['ipv4']}/24 dev {DEVICE}")
    _do(f"ip address add {own['ipv6']}/64 dev {DEVICE} nodad")
    _do(f"ip link set {DEVICE} up")
    for family in FAMILIES:
        _send_to(other[family], other["ethernet"])


def _send_to(address: str, ethernet: str) -> None:
    _do(f"ip neighbour replace {address} lladdr {ethernet} dev {DEVICE} nud permanent")


def _do(command: str) -> None:
    subprocess.run(command.split(), check=True)


@contextmanager
def _lost(peer: dict[str, str], family: str) -> Iterator[None]:
    """Nothing that this namespace sends to the peer arrives."""
    _send_to(peer[family], NOBODY)
    try:
        yield
    finally:
        _send_to(peer[family], peer["ethernet"])


def accept_one(family: str, port: int) -> int:
    """Serve one connection, read all of it; how many bytes."""
    with socket.create_server((SERVER[family], port), family=FAMILIES[family]) as listener:
        served, _ = listener.accept()
        total = 0
        with served:
            while data := served.recv(1 << 16):
                total += len(data)
        return total


def lose_segments(family: str, port: int, seconds: float) -> dict[str, int]:
    """Send while nothing arrives for so long, then let it through: what the kernel counted in this namespace."""
    before = counters.netstat("Tcp")
    with socket.create_connection((SERVER[family], port), timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(b"x")
        time.sleep(0.1)  # acknowledged, so that there is a round trip time to go by
        with _lost(SERVER, family):
            for _ in range(5):
                client.send(b"x" * 1000)
            time.sleep(seconds)
        client.shutdown(socket.SHUT_WR)
        if client.recv(1):  # comes back when the server has read all of it and closed
            raise RuntimeError("the server sent something")
    return counters.rise(before, counters.netstat("Tcp"))


def connect_to_nobody(family: str, port: int, seconds: float) -> dict[str, int]:
    """A SYN that does not arrive, for so long: what the kernel counted in this namespace."""
    before = counters.netstat("Tcp")
    with _lost(SERVER, family):
        connect_in_vain(family, port, seconds)
    return counters.rise(before, counters.netstat("Tcp"))


def connect_in_vain(family: str, port: int, seconds: float) -> int:
    """connect() for so long; its error."""
    with socket.socket(FAMILIES[family]) as client:
        client.settimeout(seconds)
        error: int = client.connect_ex((SERVER[family], port))
        return error


def listen_unheard(family: str, port: int, seconds: float) -> dict[str, int]:
    """A listener whose answers to SYNs do not arrive, for so long: what the kernel counted in this namespace."""
    before = counters.netstat("Tcp")
    with _lost(CLIENT, family), socket.create_server((SERVER[family], port), family=FAMILIES[family]):
        time.sleep(seconds)
    return counters.rise(before, counters.netstat("Tcp"))


def fill_backlog(family: str, port: int, count: int, wait: float = 0.0) -> int:
    """`count` connections that nobody accepts for `wait` seconds, and then all of them; how many were accepted."""
    address = (LOOPBACK[family], port)
    with socket.create_server(address, family=FAMILIES[family], backlog=4096) as listener:
        clients = [socket.create_connection(address) for _ in range(count)]
        time.sleep(wait)
        served = [listener.accept()[0] for _ in range(count)]
        for one in (*clients, *served):
            one.close()
    return count


def raise_somaxconn() -> None:
    Path("/proc/sys/net/core/somaxconn").write_text("4096")


def ping(family: str, source: str, count: int) -> dict[str, int]:
    """`count` echo requests to the loopback, each answered: what the kernel counted as received."""
    before = counters.netstat("Icmp")
    kind, protocol = (8, socket.IPPROTO_ICMP) if family == "ipv4" else (128, socket.IPPROTO_ICMPV6)
    with socket.socket(FAMILIES[family], socket.SOCK_RAW, protocol) as raw:
        raw.bind((source, 0))
        for number in range(count):
            packet = struct.pack("!BBHHH", kind, 0, 0, 77, number)
            if family == "ipv4":
                packet = struct.pack("!BBHHH", kind, 0, _checksum(packet), 77, number)
            raw.sendto(packet, (LOOPBACK[family], 0))
    received = "IcmpInMsgs" if family == "ipv4" else "Icmp6InMsgs"
    end = time.monotonic() + 5
    while (made := counters.rise(before, counters.netstat("Icmp"))).get(received, 0) < 2 * count:
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return made


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return 0xFFFF - total


def send_fragments(family: str, port: int, count: int) -> dict[str, int]:
    """`count` datagrams larger than the loopback's MTU: what the kernel counted as fragments to put together."""
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500"], check=True)
    before = counters.netstat("Ip")
    with (
        socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as receiver,
        socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((LOOPBACK[family], port))
        for _ in range(count):
            sender.sendto(bytes(5000), (LOOPBACK[family], port))
            assert len(receiver.recv(8192)) == 5000
    return counters.rise(before, counters.netstat("Ip"))


def keep_alive(port: int, count: int) -> int:
    """So many timers of tcp_keepalive_timer() started: one for each connection that is told to keep alive.

    They end by a reset, because FIN_WAIT2 would start the same timer; the server's side waits for it, because before
    it would send a FIN of its own.
    """
    with socket.create_server((LOOPBACK["ipv4"], port)) as listener:
        for _ in range(count):
            client = socket.create_connection((LOOPBACK["ipv4"], port))
            served, _ = listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with served, suppress(ConnectionResetError):
                served.recv(1)
    return count


def overflow_receiver(family: str, port: int, count: int) -> dict[str, int]:
    """Datagrams to a socket that reads none, until its buffer has refused `count` of them; what the kernel counted."""
    before = counters.netstat("Udp")
    errors = "Udp6RcvbufErrors" if family == "ipv6" else "UdpRcvbufErrors"
    with (
        socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as receiver,
        socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.bind((LOOPBACK[family], port))
        for _ in range(10000):
            sender.sendto(b"x" * 100, (LOOPBACK[family], port))
            if counters.netstat("Udp")[errors] - before.get(errors, 0) >= count:
                break
    return counters.rise(before, counters.netstat("Udp"))


def datagrams(port: int, count: int) -> int:
    """So many datagrams over the loopback, each received."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((LOOPBACK["ipv4"], port))
        for _ in range(count):
            sender.sendto(b"x", (LOOPBACK["ipv4"], port))
            assert select.select([receiver], [], [], 5)[0]
            receiver.recv(1)
    return count


def closed_udp_port(family: str, port: int, count: int) -> int:
    """So many datagrams to a port where nobody is."""
    with socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(b"x", (LOOPBACK[family], port))
    return count


def own_port() -> int:
    """Below what the kernel gives out by itself."""
    return 20000 + os.getpid() % 10000
