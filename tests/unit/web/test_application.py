"""The application: routes, selection, negotiation, escaping."""

from __future__ import annotations

import gzip
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from exporter.program import Attachment, Attempt, Program, Reason, State
from exporter.web import negotiation
from exporter.web.application import Application, Request
from exporter.web.listening import AddressError, listen, remove, url
from exporter.web.page import Page


class Two:
    """Two programs, one of which failed with a text that would break a page."""

    def __init__(self, state: State = State.FAILED) -> None:
        self._state = state
        self.waits: float | None = None

    def programs(self) -> Sequence[Program]:
        attached = (Attachment("kprobe", "f", "on_f", attached=True),)
        attempts = (Attempt("fentry", Reason.UNSUPPORTED, "<script>no fentry</script>"),)
        bad = Program("bad", self._state, reason=Reason.COMPILER, text="bad.c:3:1: <b>'x' & y</b>")
        return [Program("good", State.RUNNING, attachments=attached, attempts=attempts), bad]

    def ready(self) -> bool:
        return self._state is not State.LOADING

    def exposition(self, names: frozenset[str] | None, *, openmetrics: bool, seconds: float | None = None) -> Page:
        self.waits = seconds
        chosen = "all" if names is None else " ".join(sorted(names))
        return Page([f"{'openmetrics' if openmetrics else 'text'} {chosen}".encode()])


class Broken(Two):
    def exposition(self, names: frozenset[str] | None, *, openmetrics: bool, seconds: float | None = None) -> Page:
        raise RuntimeError(f"a bug with {names} {openmetrics} {seconds}")


def get(
    path: str, query: str = "", source: Two | None = None, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    sent = {name.lower().replace("_", "-"): value for name, value in headers.items()}
    response = Application(source or Two())(Request(method, path, query, sent))
    fields = dict(response.headers)
    assert len(fields) == len(response.headers), "a header twice"
    return response.status, fields, b"".join(response.body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "text all"),
        ("collect[]=good", "text good"),
        ("collect%5B%5D=good&collect[]=bad", "text bad good"),
        ("exclude[]=good", "text bad"),
        ("exclude[]=good&exclude[]=bad", "text "),
        ("name[]=other", "text all"),
    ],
)
def test_programs_are_chosen_by_collect_and_exclude(query: str, expected: str) -> None:
    assert get("/metrics", query)[2].decode() == expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("collect[]=god", "no program god; there are: good, bad\n"),
        ("exclude[]=x&exclude[]=y", "no program x, y; there are: good, bad\n"),
        ("collect[]=good&exclude[]=bad", "collect[] and exclude[] cannot be combined: use one of them\n"),
        ("&".join(f"a{i}=1" for i in range(65)), "more than 64 parameters\n"),
    ],
)
def test_a_wrong_selection_is_told(query: str, text: str) -> None:
    code, _, body = get("/metrics", query)
    assert (code, body.decode()) == (400, text)


PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"  # noqa: E501
PROMETHEUS_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"  # noqa: E501


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/plain", "text"),
        ("application/openmetrics-text", "openmetrics"),
        ("application/openmetrics-text; version=0.0.1", "text"),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.3", "text"),
        ("application/openmetrics-text;version=1.0.0;q=0", "text"),
        ("application/openmetrics-text;version=nonsense", "text"),
        ("application/openmetrics-text;version=1.0.0;q=nonsense", "text"),
        (";;,=,;q", "text"),
        (PROMETHEUS_2, "openmetrics"),
        (PROMETHEUS_3, "openmetrics"),
    ],
)
def test_the_format_is_what_the_scraper_accepts(accept: str, expected: str) -> None:
    _, headers, body = get("/metrics", ACCEPT=accept)
    assert body.split()[0].decode() == expected
    assert headers["Content-Type"].startswith("application/openmetrics" if expected == "openmetrics" else "text/plain")


@pytest.mark.parametrize(
    ("header", "allowed"),
    [("", False), ("gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False), ("*", True), ("br", False),
     ("gzip;q=nonsense", False), ("GZIP ; Q=1", True), ("*;q=0, gzip", True), ("gzip;q=0, *", False),
     ("gzip;q=nan", False), (";;,=,;q", False)],
)  # fmt: skip
def test_compression_follows_accept_encoding(header: str, allowed: bool) -> None:
    assert negotiation.gzip(header) is allowed


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *(("", None), ("10", 10.0), ("0.5", 0.5), ("0", None), ("-1", None), ("inf", None), ("nan", None)),
        *(("soon", None), ("1e5", None), ("1e11", None), ("1e308", None)),  # no thread can wait for so long
    ],
)
def test_a_scraper_says_how_long_it_waits(header: str, expected: float | None) -> None:
    source = Two()
    get("/metrics", source=source, X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS=header)
    assert source.waits == expected


def test_a_page_is_compressed_if_asked_and_equal() -> None:
    _, plain_headers, plain = get("/")
    _, headers, body = get("/", ACCEPT_ENCODING="gzip")
    assert "Content-Encoding" not in plain_headers
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == plain
    assert get("/", ACCEPT_ENCODING="gzip")[2] == body


def test_the_landing_page_shows_states_and_escapes_every_text() -> None:
    page = get("/")[2].decode()
    assert "bad.c:3:1: &lt;b&gt;&#x27;x&#x27; &amp; y&lt;/b&gt;" in page
    assert "&lt;script&gt;no fentry" in page
    assert "<script>" not in page
    assert '<a href="/metrics?collect[]=good">good</a>' in page
    assert "1 of 1" in page


def test_ready_waits_for_loading_programs() -> None:
    assert get("/-/ready", source=Two(State.LOADING))[0] == 503
    assert get("/-/ready")[0] == 200
    assert get("/-/healthy", source=Two(State.LOADING))[0] == 200


def test_other_methods_and_paths_are_refused() -> None:
    code, headers, _ = get("/metrics", method="POST")
    assert (code, headers["Allow"]) == (405, "GET, HEAD")
    assert get("/debug/pprof")[0] == 404


def test_a_bug_answers_500_and_says_nothing_to_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, body = get("/metrics", source=Broken())
    assert (code, body) == (500, b"see the exporter's log\n")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("10435", 'listen address "10435": expected HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH'),
        (":http", 'listen address ":http": expected HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH'),
        (":70000", 'listen address ":70000": expected HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH'),
        ("::1:80", 'listen address "::1:80": write an IPv6 address in brackets, "[::1]:80"'),
        ("192.0.2.1:10435", 'listen address "192.0.2.1:10435": Cannot assign requested address'),
    ],
)
def test_a_wrong_listen_address_is_told(address: str, text: str) -> None:
    with pytest.raises(AddressError) as caught:
        listen(address)
    assert str(caught.value) == text


def test_a_port_in_use_names_the_address_and_the_cure() -> None:
    with listen("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressError, match=f'"127.0.0.1:{port}": Address already in use .*ss -ltnp'):
            listen(f"127.0.0.1:{port}")


def test_an_address_without_host_listens_on_both_families() -> None:
    with listen(":0") as sock:
        assert url(sock).startswith("http://localhost:")
        assert sock.getsockname()[0] == "::"
    with listen("[::1]:0") as sock:
        assert url(sock) == f"http://[::1]:{sock.getsockname()[1]}"


def test_a_unix_socket_has_its_mode_and_goes_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with listen(f"unix://{path}?mode=0620&group={os.getgid()}") as sock:
        assert url(sock, "/metrics") == f"unix:{path}"
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o620, os.getgid())
        with pytest.raises(AddressError, match=r"another process listens there: see `ss -lxp`"):
            listen(f"unix:{path}")
        remove(sock)
        assert not path.exists()


def test_a_unix_socket_where_nobody_listens_any_more_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    listen(f"unix:{path}").close()
    assert path.exists()
    with listen(f"unix:{path}"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("unix:metrics.sock", "expected unix:PATH with an absolute path"),
        ("unix:", "expected unix:PATH with an absolute path"),
        ("unix:/x?mode=9", 'after "?" write mode=0660, group=NAME or both with "&"'),
        ("unix:/x?owner=root", 'after "?" write mode=0660, group=NAME or both with "&"'),
        ("unix:/x?group=no-such-group", 'no group "no-such-group" here'),
        ("unix:/no/such/directory/x", "No such file or directory"),
    ],
)
def test_a_wrong_unix_address_is_told(address: str, text: str) -> None:
    with pytest.raises(AddressError) as caught:
        listen(address)
    assert str(caught.value) == f'listen address "{address}": {text}'


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(AddressError, match="a file is there, and no socket: remove it"):
        listen(f"unix:{path}")
    assert path.read_text() == "data"


@pytest.mark.parametrize("address", [":0", "127.0.0.1:0", "[::1]:0"])
def test_the_last_part_of_an_answer_waits_for_no_acknowledgement(address: str) -> None:
    with listen(address) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
