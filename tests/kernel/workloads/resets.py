"""TCP resets of every kind, made for real on the loopback of this network namespace; how each should be counted.

    python3 resets.py COUNT PORT    COUNT of each kind, PORT is listened on; prints what should be counted

Run it in a namespace of its own, or take what others do there into account.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import until

ADDRESSES = {"ipv4": "127.0.0.1", "ipv6": "::1"}
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
CLOSED_PORT = 1
FIN_WAIT2, CLOSE = 5, 7  # net/tcp_states.h
ACK, RST, PSH = 0x10, 0x04, 0x08
DEADLINE = 10.0  # seconds for something to happen on the loopback

# direction, kind, state, reason, family, port ("ephemeral", or that of the listener) -> how many. The reason is that of
# 6.18; kernels before 6.10 have none, before 6.12 none for active resets.
Counted = dict[tuple[str, str, str, str, str, str], int]


def make(count: int, port: int) -> list[list[object]]:
    """Make `count` resets of each kind. What should be counted: rows of six labels and a number, for JSON."""
    counted: Counted = {}
    for family in ADDRESSES:
        for kind in (closed_port, unread_data, linger, time_wait):
            _add(counted, kind(count, port, family))
        _add(counted, stray_to_listener(count, port, family))
        _add(counted, stray_to_closed_port(count, family))
        stray_resets(count, port, family)
    _add(counted, unread_data_of_mapped(count, port))
    return [[*labels, number] for labels, number in sorted(counted.items())]


def out_resets() -> int:
    """TcpOutRsts of this network namespace."""
    return parse_out_resets(Path("/proc/self/net/snmp").read_text())


def parse_out_resets(text: str) -> int:
    """TcpOutRsts out of /proc/PID/net/snmp."""
    header, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[header.index("OutRsts")])


def closed_port(count: int, _port: int, family: str) -> Counted:
    """connect() to a port where nobody listens."""
    for _ in range(count):
        with socket.socket(FAMILIES[family]) as client:
            refused = client.connect_ex((ADDRESSES[family], CLOSED_PORT))
            assert refused, "somebody listens on port 1"
    return {
        ("sent", "reply", "none", "NO_SOCKET", family, "ephemeral"): count,
        ("received", "none", "syn_sent", "none", family, "ephemeral"): count,
    }


def unread_data(count: int, port: int, family: str) -> Counted:
    """The server closes while data of the client lies unread."""
    with _listener(port, family) as listener:
        for _ in range(count):
            client, served = _connection(listener)
            _close_unread(client, served)
    return _unread_counted(count, port, family)


def unread_data_of_mapped(count: int, port: int) -> Counted:
    """The same with an IPv4 client of an IPv6 listener: what goes over the wire is IPv4."""
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        for _ in range(count):
            client = socket.create_connection((ADDRESSES["ipv4"], port))
            served, _ = listener.accept()
            _close_unread(client, served)
    return _unread_counted(count, port, "ipv4")


def _close_unread(client: socket.socket, served: socket.socket) -> None:
    with client:
        client.send(b"x")
        served.recv(1, socket.MSG_PEEK)  # waits until it is there
        served.close()
        _wait_for_reset(client)


def _unread_counted(count: int, port: int, family: str) -> Counted:
    return {
        ("sent", "active", "established", "TCP_ABORT_ON_CLOSE", family, str(port)): count,
        ("received", "none", "established", "none", family, "ephemeral"): count,
    }


def linger(count: int, port: int, family: str) -> Counted:
    """The client closes with SO_LINGER 0."""
    with _listener(port, family) as listener:
        for _ in range(count):
            client, served = _connection(listener)
            with served:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                _wait_for_reset(served)
    return {
        ("sent", "active", "established", "TCP_STATE", family, "ephemeral"): count,
        ("received", "none", "established", "none", family, str(port)): count,
    }


def time_wait(count: int, port: int, family: str) -> Counted:
    """The client has closed and is in TIME_WAIT when the server sends."""
    with _listener(port, family) as listener:
        for _ in range(count):
            client, served = _connection(listener)
            with served:
                _close_into_time_wait(client, family)
                served.send(b"x")
                _wait_for_reset(served)
    return {
        ("sent", "reply", "time_wait", "TCP_TIMEWAIT_SOCKET", family, "ephemeral"): count,
        ("received", "none", "close_wait", "none", family, str(port)): count,
    }


def stray_to_listener(count: int, port: int, family: str) -> Counted:
    """A segment of no connection comes to a listening port, as when it slipped past NAT. Nobody takes the reset."""
    with _listener(port, family):
        strays(count, port, family)
    return {("sent", "reply", "listen", "TCP_FLAGS", family, str(port)): count}


def stray_to_closed_port(count: int, family: str) -> Counted:
    """A segment of no connection comes to a port where nobody listens. Nobody takes the reset."""
    strays(count, CLOSED_PORT, family)
    return {("sent", "reply", "none", "NO_SOCKET", family, "ephemeral"): count}


def strays(count: int, port: int, family: str = "ipv4") -> None:
    """Segments of no connection, from `count` ports to one."""
    for number in range(count):
        send_segment(family, 50000 + number, port, ACK | PSH)
    _settle()


def strays_when_told(count: int, port: int, start: str) -> None:
    """Listen at once; when the file `start` appears, send strays to the listener."""
    with _listener(port, "ipv4"):
        until(Path(start).exists, f"{start} never appeared")
        strays(count, port)


def stray_resets(count: int, port: int, family: str) -> None:
    """Resets that no socket takes: they are not answered, and nothing is counted."""
    with _listener(port, family):
        for number in range(count):
            send_segment(family, 50000 + number, port, RST)
            send_segment(family, 50000 + number, CLOSED_PORT, RST)
        _settle()


def send_segment(family: str, source: int, destination: int, flags: int) -> None:
    """One TCP segment without data out of a raw socket, from this host to itself."""
    address = ADDRESSES[family]
    header = struct.pack("!HHIIBBHHH", source, destination, 1, 1, 5 << 4, flags, 1024, 0, 0)
    with socket.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        if family == "ipv6":
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 16)  # the kernel fills in that field
            raw.sendto(header, (address, 0))
        else:
            pseudo = socket.inet_aton(address) * 2 + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(header))
            raw.sendto(header[:16] + struct.pack("!H", _checksum(pseudo + header)) + header[18:], (address, 0))


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@contextmanager
def _listener(port: int, family: str) -> Iterator[socket.socket]:
    with socket.create_server((ADDRESSES[family], port), family=FAMILIES[family]) as listener:
        yield listener


def _connection(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname()[:2])
    served, _ = listener.accept()
    return client, served


def _wait_for_reset(connection: socket.socket) -> None:
    connection.settimeout(DEADLINE)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        return
    # After the peer's FIN a reset shows as EPIPE on the next call, or as SO_ERROR.
    _wait_for(
        lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or _state(connection) == CLOSE, "reset"
    )


def _close_into_time_wait(client: socket.socket, family: str) -> None:
    """close() of a socket whose FIN is acknowledged makes a struct inet_timewait_sock of it at once (__tcp_close() in
    net/ipv4/tcp.c). An acknowledgement that comes while close() itself still owns the socket leaves it alive in
    FIN_WAIT2 for a minute instead (tcp_rcv_state_process()), and then data is answered by another reset."""
    port = client.getsockname()[1]
    client.shutdown(socket.SHUT_WR)
    _wait_for(lambda: _state(client) == FIN_WAIT2, "acknowledgement of a FIN")
    client.close()
    assert _in_time_wait(port, family), f"port {port} is not in TIME_WAIT"


def _in_time_wait(port: int, family: str) -> bool:
    """Whether this local port is in TIME_WAIT. /proc shows its substate, FIN_WAIT2 at first as of a live socket, but
    only a struct inet_timewait_sock has timer 03 (get_timewait4_sock() in net/ipv4/tcp_ipv4.c)."""
    table = Path("/proc/self/net/tcp6" if family == "ipv6" else "/proc/self/net/tcp")
    rows = (line.split() for line in table.read_text().splitlines()[1:])
    return any(int(row[1].rpartition(":")[2], 16) == port and row[5].startswith("03:") for row in rows)


def _state(connection: socket.socket) -> int:
    """tcpi_state of struct tcp_info."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def _wait_for(holds: Callable[[], bool], what: str) -> None:
    until(holds, f"no {what} came", DEADLINE, every=0.001)


def _settle() -> None:
    """Segments over the loopback are taken in by a softirq, which may be left to ksoftirqd when the CPU is busy."""
    time.sleep(0.1)


def _add(to: Counted, more: Counted) -> None:
    for labels, number in more.items():
        to[labels] = to.get(labels, 0) + number


if __name__ == "__main__":
    before = out_resets()
    print(json.dumps(make(int(sys.argv[1]), int(sys.argv[2])), indent=0))
    print("TcpOutRsts", out_resets() - before)
