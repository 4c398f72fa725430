"""Traffic of every kind that the bundled programs count, over loopback of a network namespace of its own.

As a script (`workload.py KIND`) it runs until it is killed; `running(KIND)` does that in a new namespace.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
CLOSED_PORT = 9  # discard: nothing listens in a new namespace
SILENT_PORT = 7777  # where SYNs are dropped
SILENT = f"""
table ip workload {{
    chain input {{
        type filter hook input priority 0
        tcp dport {SILENT_PORT} drop
    }}
}}
"""
LOST_SYNS = """
table ip workload {
    chain input {
        type filter hook input priority 0
        tcp flags & (syn | ack) == syn numgen random mod 2 == 0 drop
    }
}
"""


@contextlib.contextmanager
def running(kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """This script in a network namespace of its own until the block ends."""
    inside = f"ip link set lo up && exec {sys.executable} {Path(__file__).resolve()} {kind}"
    process = subprocess.Popen(["unshare", "--net", "--", "sh", "-c", inside], stdin=subprocess.DEVNULL)
    try:
        yield process
        assert process.poll() is None, f"workload {kind} ended with {process.returncode}"
    finally:
        process.kill()
        process.wait()


def calm() -> None:
    """A quiet host: five rounds a second, some fifteen resets among them, and no answer that takes long. Now and then
    it connects to somebody who is silent, and some datagrams find no room."""
    subprocess.run(["nft", "-f", "-"], input=SILENT, text=True, check=True)
    silent: deque[socket.socket] = deque()
    unread = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unread.bind(("127.0.0.1", 0))
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    deaf = socket.create_server(("127.0.0.1", 0))
    services = [_echo(socket.AF_INET, "127.0.0.1"), _echo(socket.AF_INET6, "::1")]
    for size in itertools.cycle((10, 700, 9_000, 70_000)):
        for address in services:
            _converse(address, size)
            _refused((address[0], CLOSED_PORT))
        _reset_at_close(services[0])
        _send_after_reset(deaf)
        silent.append(_connecting(("127.0.0.1", SILENT_PORT)))
        if len(silent) > 20:  # four seconds: the first SYN was sent again after one
            silent.popleft().close()
        unread.sendto(bytes(1000), unread.getsockname())
        time.sleep(0.2)


def storm() -> None:
    """Connects to a port where nothing listens, as fast as it goes."""
    while True:
        _refused(("127.0.0.1", CLOSED_PORT))


def slow_answers() -> None:
    """Many requests at once, each answered after a second and a half."""
    while True:
        with contextlib.ExitStack() as stack:
            pairs = _pairs(stack, 1000)
            for client, _ in pairs:
                client.send(b"request")
            time.sleep(1.5)
            for client, server in pairs:
                server.recv(16)
                server.send(b"answer")
                client.recv(16)


def lost_syns() -> None:
    """Many connects at once through a filter that drops every second SYN."""
    subprocess.run(["nft", "-f", "-"], input=LOST_SYNS, text=True, check=True)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    while True:
        with contextlib.ExitStack() as stack:
            for _ in range(1000):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
            time.sleep(4)
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    stack.enter_context(listener.accept()[0])


def silent_peers() -> None:
    """Many connects at once to a port that never answers, again every four seconds."""
    subprocess.run(["nft", "-f", "-"], input=SILENT, text=True, check=True)
    while True:
        with contextlib.ExitStack() as stack:
            for _ in range(900):
                stack.enter_context(_connecting(("127.0.0.1", SILENT_PORT)))
            time.sleep(4)


def no_accept() -> None:
    """A listener that accepts nobody until hundreds wait."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    while True:
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            for _ in range(400):
                stack.enter_context(listener.accept()[0])


def _connecting(address: tuple[str, int]) -> socket.socket:
    """A socket that has begun to connect."""
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(address)
    return client


def _echo(family: socket.AddressFamily, host: str) -> tuple[str, int]:
    """A service that answers so much as it is asked, after two milliseconds; its address."""
    listener = socket.create_server((host, 0), family=family, backlog=64)

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            while size := connection.recv(4):
                asked = int.from_bytes(size, "big")
                connection.recv(asked, socket.MSG_WAITALL)
                time.sleep(0.002)
                connection.sendall(bytes(asked))

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    host, port = listener.getsockname()[:2]
    return host, port


def _converse(address: tuple[str, int], size: int) -> None:
    with socket.create_connection(address) as client:
        for _ in range(3):
            client.sendall(size.to_bytes(4, "big") + bytes(size))
            client.recv(size, socket.MSG_WAITALL)


def _refused(address: tuple[str, int]) -> None:
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(address).close()


def _reset_at_close(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)


def _send_after_reset(listener: socket.socket) -> None:
    """Sends that fail: the peer has closed, and answers the first one with a reset."""
    with socket.create_connection(listener.getsockname()) as client:
        listener.accept()[0].close()
        with contextlib.suppress(ConnectionError):
            for _ in range(3):
                client.send(b"anybody there?")
                time.sleep(0.002)


def _pairs(stack: contextlib.ExitStack, count: int) -> list[tuple[socket.socket, socket.socket]]:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
    pairs = []
    for _ in range(count):
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        pairs.append((client, stack.enter_context(listener.accept()[0])))
    return pairs


KINDS = {
    "calm": calm,
    "storm": storm,
    "slow-answers": slow_answers,
    "lost-syns": lost_syns,
    "silent-peers": silent_peers,
    "no-accept": no_accept,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
