"""The HTTP server on a real socket: what clients do on purpose, by accident and by being slow."""

from __future__ import annotations

import gzip
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.program import Program
from exporter.web.application import Application, Handler, Request, Response
from exporter.web.connection import HEADER_LIMIT, Access, Connection, Phase, Service
from exporter.web.http_server import THREADS, WAITING, HttpServer
from exporter.web.listening import listen
from exporter.web.page import Page
from exporter.web.threads import FINISH
from tests.waiting import until

Logged = Callable[[], list[str]]

PAGE = b"a line of metrics 1\n" * 1000
HUGE = b"x" * (16 << 20)  # more than the buffers of both sockets take

SLOW_TIMEOUT = 1  # seconds; what a client in these tests may take where it is to be cut off
ENOUGH = 30.0  # seconds; for what must come at once on an idle machine


TEXT = (("Content-Type", "text/plain"),)
PIECES: list[bytes | memoryview] = [b"a", memoryview(b"b" * 70_000), b"", memoryview(b"c"), b"d" * 200_000, b"e\n"]


def _handler(request: Request) -> Response:
    if request.path == "/pieces":
        return Response(200, TEXT, PIECES)
    body = HUGE if request.path == "/huge" else PAGE
    if "gzip" in request.header("accept-encoding"):
        body = gzip.compress(body, mtime=0)
    return Response(200, TEXT, [body])


class Nothing:
    """A source without programs."""

    def programs(self) -> Sequence[Program]:
        return []

    def ready(self) -> bool:
        return True

    def exposition(self, names: object, *, openmetrics: bool, seconds: float | None = None) -> Page:  # noqa: ARG002
        return Page([PAGE])


def begin(**timeouts: int) -> tuple[HttpServer, threading.Thread, int]:
    """A server on loopback with the timeouts given, what it runs in, and its port."""
    sock = listen("127.0.0.1:0")
    server = HttpServer([sock], _handler, **timeouts)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    return server, thread, sock.getsockname()[1]


@pytest.fixture
def serve(logged: Logged) -> Iterator[Callable[..., int]]:
    """Starts servers on loopback with the timeouts given, and ends them; gives the port."""
    started: list[tuple[HttpServer, threading.Thread]] = []

    def start(**timeouts: int) -> int:
        server, thread, port = begin(**timeouts)
        started.append((server, thread))
        return port

    yield start
    for server, thread in started:
        server.stop()
        thread.join(ENOUGH)


def connect(port: int) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(ENOUGH)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    client.connect(("127.0.0.1", port))
    return client


def get(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    client = HTTPConnection("127.0.0.1", port, timeout=ENOUGH)
    client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = client.getresponse()
    body = answer.read()
    client.close()
    return answer, body


def test_the_server_header_names_the_exporter_and_no_version(serve: Callable[..., int]) -> None:
    assert get(serve())[0].headers["Server"] == "bpf-exporter"


def raw(port: int, request: bytes) -> bytes:
    """Everything that the server answers to these bytes until it closes."""
    client = connect(port)
    client.sendall(request)
    return rest(client)


def exchange(request: bytes, handler: Handler) -> bytes:
    """What a handler's connection answers at once."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(request)
        Connection(Service(Access(handler)), ours, "").work()
        return theirs.recv(1 << 20)


def rest(client: socket.socket) -> bytes:
    """What still comes until the server closes."""
    with client:
        return b"".join(iter(lambda: client.recv(1 << 20), b""))


def test_head_has_the_length_of_the_body_and_none(serve: Callable[..., int]) -> None:
    port = serve()
    for headers in ({}, {"Accept_Encoding": "gzip"}):
        whole, body = get(port, **headers)
        head, nothing = get(port, method="HEAD", **headers)
        assert head.headers["Content-Length"] == whole.headers["Content-Length"] == str(len(body))
        assert nothing == b""
    text = raw(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert text.partition(b"\r\n\r\n")[2] == b""


def test_an_answer_in_pieces_comes_whole(serve: Callable[..., int]) -> None:
    assert get(serve(), "/pieces")[1] == b"".join(PIECES)


def test_requests_on_one_connection_are_answered_in_order(serve: Callable[..., int]) -> None:
    one = b"%s /metrics HTTP/1.1\r\nHost: x\r\n%s\r\n"
    text = raw(serve(), one % (b"GET", b"") + one % (b"HEAD", b"") + one % (b"GET", b"Connection: close\r\n"))
    parts = [part for part in text.split(b"HTTP/1.1 200 OK\r\n") if part]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [PAGE, b"", PAGE]


@pytest.mark.parametrize(
    ("request_text", "kept"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET http://x:1/metrics?a[]=b HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", True),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", True),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", True),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET /metrics HTTP/1.0\r\n\r\n", False),
    ],
)
def test_a_connection_is_kept_unless_the_client_wants_its_end(
    serve: Callable[..., int], request_text: bytes, kept: bool
) -> None:
    last = b"HEAD /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    first, *following = raw(serve(), request_text + last).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.endswith(PAGE)
    assert (b"\r\nConnection: close\r\n" in first) is not kept
    assert len(following) == kept


@pytest.mark.parametrize("target", [b"/", b"*", b"x:443"])
@pytest.mark.parametrize("method", [b"POST", b"OPTIONS", b"CONNECT", b"get"])
def test_another_method_is_answered_with_those_that_there_are(method: bytes, target: bytes) -> None:
    text = exchange(method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n", Application(Nothing()))
    assert text.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET, HEAD\r\n" in text


@pytest.mark.parametrize("path", [b"/", b"/metrics", b"/-/healthy", b"/nothing", b"//[x", b"*"])
def test_head_has_the_headers_of_get_and_no_body(path: bytes) -> None:
    head, whole = (
        exchange(b"%s %s HTTP/1.1\r\nHost: x\r\n\r\n" % (method, path), Application(Nothing()))
        for method in (b"HEAD", b"GET")
    )
    headers, end, body = whole.partition(b"\r\n\r\n")
    assert body
    assert re.sub(b"Date: .*\r\n", b"", head) == re.sub(b"Date: .*\r\n", b"", headers + end)


def test_a_connection_is_kept_for_the_next_scrape(serve: Callable[..., int]) -> None:
    client = HTTPConnection("127.0.0.1", serve(), timeout=ENOUGH)
    ports = set()
    for _ in range(3):
        client.request("GET", "/metrics")
        ports.add(client.sock.getsockname())
        assert client.getresponse().read() == PAGE
    client.close()
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        (b"GET /" + b"a" * HEADER_LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * HEADER_LIMIT + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"413"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET //[x HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n that: goes on\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", b"413"),
    ],
)
def test_what_is_too_large_or_no_http_is_refused(serve: Callable[..., int], request_text: bytes, code: bytes) -> None:
    port = serve()
    assert raw(port, request_text).split(b" ")[1] == code
    assert get(port)[1] == PAGE


def test_clients_that_connect_and_say_nothing_hold_up_nobody(serve: Callable[..., int]) -> None:
    port = serve()
    silent = [connect(port) for _ in range(5 * THREADS)]
    started = time.monotonic()
    assert get(port)[1] == PAGE
    assert time.monotonic() - started < 5  # a silent client has 10 s
    for client in silent:
        client.close()


def test_a_request_that_trickles_is_cut_off_in_time(serve: Callable[..., int]) -> None:
    port = serve(timeout=SLOW_TIMEOUT)
    end, answer = time.monotonic() + ENOUGH, None
    with connect(port) as client:
        client.settimeout(SLOW_TIMEOUT / 10)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        while answer is None and time.monotonic() < end:
            try:
                client.sendall(b"a: b\r\n")  # never so late that the pause alone would end it
                answer = client.recv(1)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                answer = b""
    assert answer is not None
    assert get(port)[1] == PAGE


def test_an_answer_that_is_taken_by_drops_is_given_up(serve: Callable[..., int]) -> None:
    port = serve(answer_timeout=SLOW_TIMEOUT)
    taken = 0
    with connect(port) as client:
        client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            while drop := client.recv(128 << 10):  # never so late that the pause alone would end it
                taken += len(drop)
                time.sleep(0.05)
    assert taken < len(HUGE) / 2  # all of it would take 6 s and more
    assert get(port)[1] == PAGE


def test_a_client_that_leaves_within_its_answer_is_not_worth_a_line(serve: Callable[..., int], logged: Logged) -> None:
    port = serve()
    for _ in range(3):
        with connect(port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an orderly end
            client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1000)
    with connect(port) as client:
        client.sendall(b"GET /met")
    assert get(port)[1] == PAGE
    assert logged() == []


def test_many_scrapers_at_once_each_have_the_whole_page(serve: Callable[..., int]) -> None:
    port = serve()
    pages: list[bytes] = []
    threads = [threading.Thread(target=lambda: pages.append(get(port)[1])) for _ in range(4 * THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ENOUGH)
    assert pages == [PAGE] * len(threads)


def test_a_crowd_from_one_address_costs_no_other_address_its_connection(serve: Callable[..., int]) -> None:
    port = serve()
    other = HTTPConnection("127.0.0.1", port, timeout=ENOUGH, source_address=("127.0.0.2", 0))
    other.request("GET", "/metrics")
    assert other.getresponse().read() == PAGE
    before = other.sock.getsockname()
    crowd = [connect(port) for _ in range(2 * WAITING)]
    for client in crowd:
        with suppress(OSError):
            client.sendall(b"GET /")
    assert get(port)[1] == PAGE  # and a newcomer of the crowd's own address is answered
    other.request("GET", "/metrics")
    assert other.getresponse().read() == PAGE
    assert other.sock.getsockname() == before
    other.close()
    for client in crowd:
        client.close()


def test_answers_that_are_not_taken_hold_up_nobody(serve: Callable[..., int]) -> None:
    port = serve()
    slow = [connect(port) for _ in range(5 * THREADS)]
    for client in slow:
        client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
    for client in slow:
        assert client.recv(1)  # it is being answered
    assert get(port)[1] == PAGE
    for client in slow:
        client.close()


def test_a_body_is_not_taken_for_the_next_request(serve: Callable[..., int]) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    length = b"Content-Length: %d" % len(smuggled)
    zero = b"Content-Length: 0"
    framings = (
        length,
        length + b"\r\n" + zero,
        length + b"\r\n 0",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: ,",
    )
    for framing in framings:
        text = raw(serve(), b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + smuggled)
        assert text.count(b"HTTP/1.1 ") == 1, framing
        assert text.split(b" ")[1] in (b"400", b"413", b"501"), framing


def test_a_client_that_never_ends_its_body_holds_no_thread(logged: Logged) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(ENOUGH)
        connection = Connection(Service(Access(_handler)), ours, "")
        theirs.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * (100 << 10))
        assert connection.work() == select.EPOLLIN
        assert connection.phase is Phase.LINGERING
        assert ours.recv(1, socket.MSG_PEEK) == b"x", "read for as long as something came"
        connection.until = 0.0
        assert connection.work() is None, "longer than its time"
        connection.close()


def test_a_connection_whose_time_is_over_may_be_taken_just_then() -> None:
    class TakenWhenFound(dict[int, Connection]):
        """As if another thread ran between any two steps of the one that looks."""

        def get(self, fd: int, default: Any = None) -> Any:
            found = super().get(fd, default)
            self.clear()
            return found

    server = HttpServer([], _handler)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(Service(Access(_handler)), ours, "")
        server._threads._waiting = TakenWhenFound({connection.fd: connection})
        assert not server._threads._drop(connection)
        assert connection.socket.fileno() == connection.fd, "closed under the thread that has it"


def test_who_connected_before_the_end_is_answered() -> None:
    """A client that was taken and has not asked yet cannot know that it would have to ask somebody else."""
    server, thread, port = begin()
    client, rested, slow = connect(port), connect(port), connect(port)
    rested.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert rested.recv(1)
    slow.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
    assert slow.recv(1)
    until(lambda: len(server._threads._waiting) == 3)
    server.stop()
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert rest(client).endswith(PAGE)
    assert rest(slow).endswith(HUGE)
    assert rest(rested).endswith(PAGE[-1:])
    thread.join(ENOUGH)
    with connect(port) as late:
        late.settimeout(0.1)
        with pytest.raises(TimeoutError):  # it is for the next server, which has the same listening socket
            late.recv(1)


def test_silent_clients_do_not_put_off_the_end() -> None:
    server, thread, port = begin()
    silent = [connect(port) for _ in range(5 * THREADS)]
    until(lambda: len(server._threads._waiting) == len(silent))
    server.stop()
    thread.join(FINISH - 1)
    assert not thread.is_alive()
    for client in silent:
        assert rest(client) == b""


def test_a_request_after_the_last_one_does_not_cut_its_answer(serve: Callable[..., int]) -> None:
    client = connect(serve())
    client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    first = client.recv(1)
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (first + rest(client)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == HUGE


def test_what_cannot_be_http_is_answered_at_once(serve: Callable[..., int]) -> None:
    assert raw(serve(), b"\x16\x03\x01\x02\x00\x01").startswith(b"HTTP/1.1 400 Bad Request")


REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
FRAGMENTS = [
    *(REQUEST, b"GET ", b"HEAD ", b"POST ", b"get ", b"/", b"/metrics", b"*", b"http://x/", b"/%zz", b"?a=b", b" "),
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b"\r\n", b"\n", b"\r\n\r\n", b"Host: x", b"Connection: Keep-Alive", b": "),
    *(
        b"Content-Length: 3",
        b"Content-Length: -1",
        b"Content-Length: x",
        b"Transfer-Encoding: chunked",
        b"\x00",
        b"\xff",
    ),
    *(b"Transfer-Encoding: gzip", b"Expect: 100-continue", b"Connection: close", b" folded", b"\x16\x03\x01"),
]


@given(fragments=st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8), max_size=12))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_the_server_goes_on(any_port: int, fragments: list[bytes], logged: Logged) -> None:
    with connect(any_port) as client:
        with suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(b"".join(fragments))
            client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while client.recv(65536):
                pass
    assert get(any_port)[1] == PAGE
    assert [line for line in logged() if "level=error" in line] == []


@pytest.fixture
def any_port(serve: Callable[..., int]) -> int:
    return serve()


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n", "/a"),
        (b"GET http://x/a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n", "/a"),
        (b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "/"),
        (b"GET http://x?b=1 HTTP/1.1\r\nHost: x\r\n\r\n", "/"),
        (b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n", "/a"),
    ],
    ids=["empty line first", "absolute form", "no path", "no path but a query", "higher minor version"],
)
def test_what_the_specification_allows_is_answered(sent: bytes, path: str) -> None:
    """RFC 9112, 2.2 and 3.2.2; RFC 9110, 2.5."""
    answer = exchange(sent, lambda request: Response(200, TEXT, [request.path.encode()]))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n" + path.encode())


def test_the_answer_to_a_malformed_request_repeats_nothing_of_it() -> None:
    sent = b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: secret\r\n\r\n"
    answer = exchange(sent, lambda _: Response(200, TEXT, []))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"secret" not in answer
    assert b"bytearray" not in answer
