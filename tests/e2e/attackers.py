"""Clients that mean no good, as a process of its own: `python -m tests.e2e.attackers KIND PORT CLIENTS SECONDS`.

They come back when they are thrown out, as real ones do. At the end one line of JSON says what they did.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

PAUSE = 0.5  # seconds between two drops of a slow client
ANSWER = 60.0  # seconds that a flooding client waits

done: Counter[str] = Counter()


def slow_request() -> Iterator[bytes]:
    """Slowloris: a request that never ends, one header at a time."""
    yield b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    while True:
        yield b"X-Slow: 1\r\n"


def slow_handshake() -> Iterator[bytes]:
    """A TLS record that promises 512 bytes of ClientHello, a byte at a time."""
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    while True:
        yield b"\x00"


def silent() -> Iterator[bytes]:
    while True:
        yield b""


def slow_reader() -> Iterator[bytes]:
    """Asks, and does not take the answer."""
    yield b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50
    while True:
        yield b""


def large_header() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: "
    while True:
        yield b"a" * 65536


def large_line() -> Iterator[bytes]:
    yield b"GET /"
    while True:
        yield b"a" * 65536


SLOW: dict[str, Callable[[], Iterator[bytes]]] = {
    each.__name__: each for each in (slow_request, slow_handshake, silent, slow_reader, large_header, large_line)
}


def trickle(kind: str, port: int, clients: int, seconds: float) -> None:
    """So many connections at any time, each sending its next drop every PAUSE."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        while time.monotonic() < end:
            began = time.monotonic()
            while len(selector.get_map()) < clients and time.monotonic() < end and (sock := _connected(port)):
                selector.register(sock, selectors.EVENT_READ, SLOW[kind]())
            for key, _ in selector.select(0):
                if kind != "slow_reader" and _ended(key.fileobj):
                    selector.unregister(key.fileobj)
            for key in list(selector.get_map().values()):
                try:
                    key.fileobj.send(next(key.data))  # type: ignore[union-attr]
                except BlockingIOError:
                    continue
                except OSError:
                    done["thrown out"] += 1
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            time.sleep(max(0.0, PAUSE - (time.monotonic() - began)))


def _connected(port: int) -> socket.socket | None:
    try:
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    except OSError:
        done["not connected"] += 1
        return None
    sock.setblocking(False)
    done["connected"] += 1
    return sock


def _ended(sock: object) -> bool:
    assert isinstance(sock, socket.socket)
    with suppress(BlockingIOError):
        try:
            if sock.recv(65536):
                return False
        except OSError:
            pass
        done["thrown out"] += 1
        sock.close()
        return True
    return False


def flood(port: int, clients: int, requests: int) -> None:
    """All at once, each over one connection, one request after another."""

    def ask(client: HTTPConnection) -> None:
        for _ in range(requests // clients):
            _ask(client, {})

    _at_once(clients, ask, port)


def guess(port: int, clients: int, seconds: float) -> None:
    """Another password with each request."""
    end = time.monotonic() + seconds

    def ask(client: HTTPConnection) -> None:
        while time.monotonic() < end:
            _ask(
                client,
                {"Authorization": "Basic " + base64.b64encode(b"scraper:" + os.urandom(9).hex().encode()).decode()},
            )

    _at_once(clients, ask, port)


def _at_once(clients: int, ask: Callable[[HTTPConnection], object], port: int) -> None:
    connections = [HTTPConnection("127.0.0.1", port, timeout=ANSWER) for _ in range(clients)]
    threads = [threading.Thread(target=ask, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _ask(client: HTTPConnection, headers: dict[str, str]) -> None:
    try:
        client.request("GET", "/metrics", headers=headers)
        answer = client.getresponse()
        answer.read()
        done[str(answer.status)] += 1
    except (OSError, HTTPException):
        done["not answered"] += 1
        client.close()


def main() -> None:
    kind, port, clients, amount = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    if kind == "flood":
        flood(port, clients, int(amount))
    elif kind == "guess":
        guess(port, clients, amount)
    else:
        trickle(kind, port, clients, amount)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
