"""Calls of tcp_sendmsg() on the loopback of this network namespace, each known: result, family, size.

python3 sends.py COUNT PORT    prints what tcp_sendmsg() should have counted by family
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESSES = {"ipv4": "127.0.0.1", "ipv6": "::1"}
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
# Both sides of each bound of a histogram, and none.
SIZES = (0, *(size for power in range(17) for size in ((1 << power) - 1, 1 << power, (1 << power) + 1) if size))

# family -> what was counted: {"calls": n, "bytes": n, "errors": n, "sizes": [bytes of each call that did not fail]}
Counted = dict[str, dict[str, object]]


class Peer(threading.Thread):
    """Reads all that comes as long as `reads` is set, and ends with the connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.reads = threading.Event()
        self.reads.set()
        self._connection = connection
        self.start()

    def run(self) -> None:
        with self._connection:
            while self._connection.recv(1 << 16):
                self.reads.wait()


class Tally:
    """What the sends of one family came to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.errors = 0

    def send(self, connection: socket.socket, data: bytes, flags: int = 0) -> bool:
        """One call; whether it took anything."""
        try:
            self.sizes.append(connection.send(data, flags | socket.MSG_NOSIGNAL))
        except OSError:
            self.errors += 1
            return False
        return True

    def counted(self) -> dict[str, object]:
        return {
            "calls": len(self.sizes) + self.errors,
            "bytes": sum(self.sizes),
            "errors": self.errors,
            "sizes": self.sizes,
        }


def make(count: int, port: int) -> Counted:
    """In each family `count` sends of each size in SIZES, `count` that fail with EPIPE, and some until EAGAIN; and an
    IPv6 socket with an IPv4 peer, whose packets are IPv4. Beside them sends that are not TCP's and count nothing."""
    tallies = {family: Tally() for family in ADDRESSES}
    for family, tally in tallies.items():
        with _connection(family, port) as (client, peer):
            for _ in range(count):
                for size in SIZES:
                    tally.send(client, bytes(size))
            _fill(client, peer, tally)
        with _connection(family, port) as (client, _):
            client.shutdown(socket.SHUT_WR)
            for _ in range(count):
                tally.send(client, b"x")
        _not_tcp(count, family)
    with _connection("ipv4", port, through_ipv6=True) as (client, _):
        for _ in range(count):
            tallies["ipv4"].send(client, b"mapped")
    return {family: tally.counted() for family, tally in tallies.items()}


def send_file(count: int, port: int, size: int) -> None:
    """`count` calls of sendfile() of `size` bytes: of tcp_sendmsg() from 6.5 on, of tcp_sendpage() before."""
    with tempfile.TemporaryFile() as file, _connection("ipv4", port) as (client, _):
        file.write(bytes(size))
        file.flush()
        for _ in range(count):
            assert os.sendfile(client.fileno(), file.fileno(), 0, size) == size


def _fill(client: socket.socket, peer: Peer, tally: Tally) -> None:
    """Until both buffers are full and one send fails."""
    peer.reads.clear()
    client.setblocking(False)
    chunk = bytes(1 << 20)
    while tally.send(client, chunk):
        pass
    peer.reads.set()


def _not_tcp(count: int, family: str) -> None:
    """Sends through the same system call that never come to tcp_sendmsg()."""
    with socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as datagram:
        for _ in range(count):
            datagram.sendto(b"x", (ADDRESSES[family], 9))
    with socket.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for _ in range(count):
            raw.sendto(bytes(20), (ADDRESSES[family], 0))  # not even a checksum: dropped on arrival
    one, other = socket.socketpair()
    with one, other:
        for _ in range(count):
            one.send(b"x")


@contextmanager
def _connection(family: str, port: int, through_ipv6: bool = False) -> Iterator[tuple[socket.socket, Peer]]:
    """A client whose server reads and never writes."""
    if through_ipv6:
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        client = socket.socket(socket.AF_INET6)
        address = "::ffff:" + ADDRESSES[family]
    else:
        listener = socket.create_server((ADDRESSES[family], port), family=FAMILIES[family])
        client = socket.socket(FAMILIES[family])
        address = ADDRESSES[family]
    with listener, client:
        client.connect((address, port))
        peer = Peer(listener.accept()[0])
        try:
            yield client, peer
        finally:
            client.close()
            peer.join()


if __name__ == "__main__":
    print(json.dumps(make(int(sys.argv[1]), int(sys.argv[2]))))
