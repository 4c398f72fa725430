"""Mutated and pipelined requests on kept connections: each answer belongs to its request, whatever came before it.

The test cuts what it sends into heads by empty lines, without h11. As no request has a body, answer N must be that of
head N until the server ends the connection: an intact request is answered with its own path, a mutated one with the
path in it, with 405, or with a refusal that ends the connection. `make soak` sends 100,000 requests
(BPF_EXPORTER_FUZZ_REQUESTS); BPF_EXPORTER_FUZZ_SEED chooses others.
"""

from __future__ import annotations

import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import unquote

import pytest

from exporter.web.application import METHODS, Request, Response, text_response
from exporter.web.connection import HEADER_LIMIT
from exporter.web.http_server import HttpServer
from exporter.web.listening import listen
from exporter.web.page import Piece

REQUESTS = int(os.environ.get("BPF_EXPORTER_FUZZ_REQUESTS", "3000"))
SEED = os.environ.get("BPF_EXPORTER_FUZZ_SEED", "1")
CLIENTS, ROUND = 4, 32  # clients at the same time, and connections until they wait for each other
HANGS = 20.0  # seconds until an answer counts as missing; the server itself waits for 10 at most
REFUSALS = {400, 413, 414, 431, 501, 505}
HEAD = re.compile(rb".*?\n\r?\n", re.DOTALL)
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]+\r\n((?:[A-Za-z-]+: [^\r\n]*\r\n)+)\r\n")
TARGET = re.compile(r"(?:https?://[^/?#]*)?([^?]*)")
HEADERS = [
    *(b"Accept-Encoding: gzip", b"Connection: keep-alive", b"User-Agent: Prometheus/3.5.0", b"Content-Length: 0"),
    *(b"Expect: 100-continue", b"X-Folded: a\r\n b", b"X-Latin: \xe4", b"Connection: Upgrade\r\nUpgrade: h2c"),
]
ENDS = [b"Connection: close", b"Connection: Close, te"]
BODIES = [b"Content-Length: %d", b"Transfer-Encoding: chunked", b"Content-Length: 0%d", b"Content-Length: 1, %d"]
FRAGMENTS = [
    *(b"GET ", b"HEAD ", b"POST ", b"get ", b"/", b"*", b"http://x/", b"/%zz", b"%0d%0a", b"?a[]=b", b" ", b"\t", b":"),
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"\r\n", b"\n", b"\r", b"\n\n", b"\r\n\r\n", b"\0", b"\xff", b"\x16\x03"),
    *(b"Content-Length: 3\r\n", b"Content-Length: -1\r\n", b"Content-Length: 3, 3\r\n", b"Transfer-Encoding: x\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Host: x\r\n", b" folded\r\n", b"a" * HEADER_LIMIT),
]


def body(path: str) -> bytes:
    """Return the answer to a path: sometimes more than the buffers of both sockets take."""
    return path.encode() * random.Random(path).choice([1, 7, 400, 400, 30_000])


def handler(request: Request) -> Response:
    if request.method not in METHODS:
        return text_response(405, "only GET and HEAD")
    text = body(request.path)
    pieces: list[Piece] = [text[:10], memoryview(text)[10:70_000], text[70_000:]]
    return Response(200, (("Content-Type", "text/plain"), ("X-Path", request.path.encode().hex())), pieces)


class Stream:
    """What one client sends.

    intact   the path that each intact head asks for
    refused  the intact heads of requests with a body
    """

    def __init__(self, number: int) -> None:
        self._random = random.Random(f"{SEED}/{number}")
        self._path = f"/{number}/"
        self.intact: dict[bytes, str] = {}
        self.refused: set[bytes] = set()
        self.text = b"".join(self._item(i) for i in range(self._random.randint(1, 16)))
        self.heads = HEAD.findall(self.text)

    def _item(self, i: int) -> bytes:
        chosen = self._random.random()
        if chosen < 0.75:
            head = self._request(f"{self._path}{i}")
            self.intact[head] = f"{self._path}{i}"
            return head
        if chosen < 0.98:
            mutated = self._request(f"{self._path}{i}/mutated")
            for _ in range(self._random.choice([1, 1, 1, 3])):
                mutated = self._mutated(mutated)
            return mutated
        smuggled = self._request(f"{self._path}{i}/smuggled")
        framing = self._random.choice(BODIES)
        head = self._request(f"{self._path}{i}/body", framing % len(smuggled) if b"%" in framing else framing)
        self.refused.add(head)
        return head + smuggled

    def _request(self, path: str, *headers: bytes) -> bytes:
        choose = self._random
        lines = [*headers, *choose.sample(HEADERS, choose.choice([0, 0, 1, 2])), b"Host: x"]
        if choose.random() < 0.03:
            lines.append(choose.choice(ENDS))
        if headers:
            lines = [line for line in lines if line != b"Content-Length: 0"]
        choose.shuffle(lines)
        if lines[0].startswith(b" "):
            lines.reverse()
        prefix, query = choose.choice([b"", b"", b"http://x"]), choose.choice([b"", b"?collect[]=a&b"])
        version = b"1.0" if choose.random() < 0.02 else b"1.1"
        method = choose.choice([b"GET", b"GET", b"HEAD"])
        line = b"%s %s%s%s HTTP/%s" % (method, prefix, path.encode(), query, version)
        return b"\r\n".join([line, *lines]) + b"\r\n\r\n"

    def _mutated(self, text: bytes) -> bytes:
        choose = self._random
        fragment = choose.choice([choose.randbytes(choose.randint(1, 4)), *choose.sample(FRAGMENTS, 4)])
        if choose.random() < 0.3:
            tokens = re.split(rb"( |\r\n)", text)
            tokens[choose.randrange(len(tokens))] = fragment.strip(b"\r\n")
            return b"".join(tokens)
        start = choose.randrange(len(text) + 1)
        end = start + choose.choice([0, 1, 1, 2, 4, 20])
        before, cut, after = text[:start], text[start:end], text[end:]
        return choose.choice([before + after, before + fragment + after, before + 3 * cut + after, after + cut])

    def fragments(self) -> Iterator[bytes]:
        """Yield the text as it is sent: whole, or in pieces that end anywhere."""
        at, largest = 0, self._random.choice([1 << 20, 1 << 20, 300, 40])
        while at < len(self.text):
            size = self._random.randint(1, largest) if largest < 1 << 20 else largest
            yield self.text[at : at + size]
            at += size


@pytest.fixture
def address(logged: Callable[[], list[str]]) -> Iterator[tuple[str, int]]:
    listener = listen("127.0.0.1:0")
    server = HttpServer([listener], handler)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    server.stop()
    thread.join(HANGS)
    assert not thread.is_alive()
    listener.close()


def exchange(address: tuple[str, int], stream: Stream) -> bytes:
    with socket.create_connection(address, timeout=HANGS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):  # refused, and more than the server lingers for
            for fragment in stream.fragments():
                client.sendall(fragment)
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1 << 20), b""))


def check(stream: Stream, answers: bytes) -> Counter[int]:
    """Return how many answers have each status. AssertionError where an answer is not that of its request."""
    at, number, ends = 0, 0, False
    statuses: Counter[int] = Counter()
    while at < len(answers):
        assert not ends, "an answer after the last one"
        match = ANSWER.match(answers, at)
        assert match, answers[at : at + 200]
        status, at = int(match[1]), match.end()
        statuses[status] += 1
        headers = dict(line.split(b": ", 1) for line in match[2].splitlines())
        length, ends = int(headers[b"Content-Length"]), headers.get(b"Connection") == b"close"
        head = stream.heads[number] if number < len(stream.heads) else b""  # what cannot be one is refused early
        method, target = [*head.split(b" ", 2), b"", b""][:2]
        assert status == 200 or head not in stream.intact, f"answer {number}: {status}"
        if status == 200:
            path = TARGET.match(target.decode())
            assert path
            asked = stream.intact.get(head, unquote(path[1]))
            assert bytes.fromhex(headers[b"X-Path"].decode()).decode() == asked, f"{number} answers another request"
            assert head not in stream.refused, f"{number} accepts a body"
            assert length == len(body(asked))
            assert head not in stream.intact or ends == (b"HTTP/1.0" in head or b": close" in head.lower())
            if method == b"GET":
                assert answers[at : at + length] == body(asked)
                at += length
        elif status == 405:
            assert head
            assert method.decode() not in METHODS
            at += length
        else:
            assert status in REFUSALS
            assert ends
            assert len(answers) - at == length or (method == b"HEAD" and len(answers) == at)
            at = len(answers)
        number += 1
    assert ends or number == len(stream.heads), f"{number} answers to {len(stream.heads)} requests"
    return statuses


def test_every_answer_belongs_to_its_request(address: tuple[str, int], logged: Callable[[], list[str]]) -> None:
    def talk(number: int) -> Counter[int]:
        stream = Stream(number)
        try:
            return check(stream, exchange(address, stream))
        except (AssertionError, OSError, ValueError) as error:
            pytest.fail(f"seed {SEED}, connection {number}: {error!r} after {stream.text!r}")

    statuses: Counter[int] = Counter()
    began, number = time.monotonic(), 0
    with ThreadPoolExecutor(CLIENTS) as clients:
        while statuses.total() < REQUESTS:
            for found in clients.map(talk, range(number, number + ROUND)):
                statuses += found
            number += ROUND
    seconds = time.monotonic() - began
    print(f"{statuses.total()} answers, {number} connections, {seconds:.0f} s: {dict(sorted(statuses.items()))}")
    assert logged() == []
    assert statuses.keys() >= {200, 400, 405, 413, 414, 431}
