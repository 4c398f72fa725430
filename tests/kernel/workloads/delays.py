"""Two network namespaces joined by a line that delays, and a client of one that talks to an echo server in the other.

The line is a pair of TUN devices and a process between them, because not every kernel has netem.
"""

from __future__ import annotations

import fcntl
import os
import queue
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from tests.kernel.workloads import namespaces
from tests.waiting import child

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
ADDRESSES = {"ipv4": ("10.99.0.1", "10.99.0.2"), "ipv6": ("fd00:99::1", "fd00:99::2")}  # of the client, of the server
REQUEST = b"x" * 100
READY = b"ready"


@contextmanager
def delayed(name: str, seconds: float) -> Iterator[tuple[str, str]]:
    """Names of two namespaces, client's and server's. What the client sends takes `seconds`, what it gets no time."""
    client, server = f"{name}c", f"{name}s"
    with namespaces.namespace(client), namespaces.namespace(server):
        ends = [_end(client, 0), _end(server, 1)]
        try:
            with child(lambda: _forward(ends[0], ends[1], seconds)):
                yield client, server
        finally:
            for end in ends:
                os.close(end)


def echo(family: str, port: int, connections: int) -> None:
    """Serve so many connections, one after the other, sending back what comes; then end."""
    address = ADDRESSES[family][1]
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    with socket.create_server((address, port), family=kind) as listener:
        for _ in range(connections):
            served, _ = listener.accept()
            with served:
                served.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := served.recv(len(REQUEST), socket.MSG_WAITALL):
                    served.send(data)


def ask(family: str, port: int, count: int) -> dict[str, Any]:
    """`count` requests over one connection, each after the answer to the last; seconds as user space sees them."""
    began = time.perf_counter()
    client = socket.create_connection((ADDRESSES[family][1], port), timeout=10)
    connected = time.perf_counter() - began
    answers = []
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            client.send(REQUEST)
            assert len(client.recv(len(REQUEST), socket.MSG_WAITALL)) == len(REQUEST)
            answers.append(time.perf_counter() - began)
    return {"connect": connected, "answers": answers}


def push(port: int, count: int) -> None:
    """`count` segments from a client to a server that never sends, over the loopback of this namespace."""
    with socket.create_server(("127.0.0.1", port)) as listener, socket.create_connection(("127.0.0.1", port)) as client:
        served, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with served:
            for _ in range(count):
                client.send(REQUEST)
                served.recv(len(REQUEST), socket.MSG_WAITALL)


def _end(namespace: str, side: int) -> int:
    """A TUN device in the namespace, up and with addresses; its descriptor."""
    device = f"delay{side}-{os.getpid() % 100000}"
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", device, "netns", namespace], check=True)
    namespaces.call(namespace, _configure, device, side)
    return descriptor


def _configure(device: str, side: int) -> None:
    for command in (
        ["ip", "address", "add", f"{ADDRESSES['ipv4'][side]}/24", "dev", device],
        ["ip", "address", "add", f"{ADDRESSES['ipv6'][side]}/64", "dev", device, "nodad"],
        ["ip", "link", "set", device, "up"],
    ):
        subprocess.run(command, check=True)


def _forward(client: int, server: int, seconds: float) -> NoReturn:
    """Carry packets both ways until killed, ahead of whatever else the machine does."""
    with suppress(OSError):  # no real-time budget here: then the delay is less even
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    for source, target, delay in ((client, server, seconds), (server, client, 0.0)):
        waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=_take, args=(source, waiting, delay), daemon=True).start()
        threading.Thread(target=_give, args=(target, waiting), daemon=True).start()
    threading.Event().wait()
    os._exit(1)


def _take(source: int, waiting: queue.SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    while True:
        packet = os.read(source, 65536)
        waiting.put((time.monotonic() + delay, packet))


def _give(target: int, waiting: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, packet = waiting.get()
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        with suppress(OSError):  # the device is down at the beginning and at the end
            os.write(target, packet)
