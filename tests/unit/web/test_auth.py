"""Passwords, the rate limit and headers in front of an application."""

from __future__ import annotations

import base64
import re
import socket

import bcrypt
import pytest

from exporter.spec import WebSettings
from exporter.web import auth
from exporter.web.application import Request, Response
from exporter.web.connection import Access, Connection, Service
from tests.e2e.certificates import hashed
from tests.waiting import until

ALICE, BOB = hashed("correct horse"), hashed("battery staple")


def basic(name: str, password: str | bytes) -> str:
    secret = password.encode() if isinstance(password, str) else password
    return "Basic " + base64.b64encode(name.encode() + b":" + secret).decode()


def application(_: Request) -> Response:
    return Response(200, (("X-Content-Type-Options", "nosniff"),), [b"ok"])


def ask(
    handler: auth.Protected, authorization: str = "", address: str = "192.0.2.1", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    headers = {"authorization": authorization} if authorization else {}
    response = handler(Request(method, "/", "", headers, address))
    assert len(dict(response.headers)) == len(response.headers), "a header twice"
    return response.status, dict(response.headers), b"".join(response.body)


def protected(settings: WebSettings) -> auth.Protected:
    return auth.Protected(application).use(settings)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hash of each bcrypt run; bcrypt itself runs."""
    seen: list[str] = []

    def check(password: bytes, hashed: bytes) -> bool:
        seen.append(hashed.decode())
        return bcrypt.checkpw(password, hashed)

    monkeypatch.setattr(auth, "checkpw", check)
    return seen


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (basic("alice", "correct horse"), 200),
        (basic("bob", "battery staple"), 200),
        ("basic " + basic("alice", "correct horse").partition(" ")[2], 200),
        (basic("alice", "battery staple"), 401),
        (basic("carol", "correct horse"), 401),
        (basic("alice", ""), 401),
        (basic("alice", b"\xff\x00" * 100), 401),
        ("", 401),
        ("Basic", 401),
        ("Basic !!!", 401),
        ("Basic " + base64.b64encode(b"alice").decode(), 401),
        ("Basic " + base64.b64encode(b"\xff:x").decode(), 401),
        ("Bearer " + base64.b64encode(b"alice:correct horse").decode(), 401),
    ],
)
def test_only_a_user_with_his_password_comes_in(header: str, code: int) -> None:
    found, headers, body = ask(protected(WebSettings(users={"alice": ALICE, "bob": BOB})), header)
    assert found == code
    assert (body == b"ok") is (code == 200)
    assert headers.get("WWW-Authenticate") == (None if body == b"ok" else 'Basic realm="bpf-exporter"')


def test_a_password_costs_one_bcrypt_run_however_often_it_comes(checks: list[str]) -> None:
    handler = protected(WebSettings(users={"alice": ALICE}))
    for _ in range(5):
        assert ask(handler, basic("alice", "correct horse"))[0] == 200
        assert ask(handler, basic("alice", "wrong"))[0] == 401
    assert len(checks) == 2


def test_a_name_that_there_is_not_costs_a_run_as_well_and_always_the_same(checks: list[str]) -> None:
    handler = protected(WebSettings(users={"alice": ALICE, "bob": BOB}))
    for name in ("carol", "dave", "erin"):
        checks.clear()
        for password in ("a", "b", "c"):
            assert ask(handler, basic(name, password))[0] == 401
        assert len(checks) == 3
        assert len(set(checks)) == 1


def test_the_hash_of_another_user_does_not_let_in_who_is_none() -> None:
    handler = protected(WebSettings(users={"alice": ALICE}))
    assert ask(handler, basic("alice", "correct horse"))[0] == 200
    assert ask(handler, basic("nobody", "correct horse"))[0] == 401


def test_no_more_passwords_are_remembered_than_there_is_room_for(checks: list[str]) -> None:
    handler = protected(WebSettings(users={"alice": ALICE}))
    ask(handler, basic("alice", "correct horse"))
    for number in range(auth.REMEMBERED + 1):
        ask(handler, basic("alice", f"wrong {number}"))
    checks.clear()
    ask(handler, basic("alice", "correct horse"))  # no crowd of wrong ones makes it forgotten
    assert checks == []
    ask(handler, basic("alice", "wrong 0"))
    assert len(checks) == 1


def test_a_changed_password_holds_from_the_next_request_on() -> None:
    handler = protected(WebSettings(users={"alice": ALICE}))
    assert ask(handler, basic("alice", "correct horse"))[0] == 200
    handler = handler.use(WebSettings(users={"alice": BOB}))
    assert ask(handler, basic("alice", "correct horse"))[0] == 401
    assert ask(handler, basic("alice", "battery staple"))[0] == 200


def test_a_crowd_of_wrong_passwords_leaves_threads_for_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = protected(WebSettings(users={"alice": ALICE}))
    assert ask(handler, basic("alice", "correct horse"))[0] == 200
    same: list[int] = []
    others: list[int] = []
    known: list[int] = []

    def nested(password: bytes, hashed: bytes) -> bool:
        """While this one is looked at, others come: of the same address, of another one, and one that is known."""
        depth = len(others) + 1
        same.append(ask(handler, basic("alice", f"same {depth}"), f"192.0.2.{depth}")[0])
        known.append(ask(handler, basic("alice", "correct horse"), f"192.0.2.{depth}")[0])
        others.append(0)
        others[depth - 1] = ask(handler, basic("alice", f"other {depth}"), f"192.0.2.{depth + 1}")[0]
        return False

    monkeypatch.setattr(auth, "checkpw", nested)
    assert ask(handler, basic("alice", "first"))[0] == 401
    assert same == [429] * auth.CHECKS
    assert known == [200] * auth.CHECKS
    assert others == [401] * (auth.CHECKS - 1) + [429]


def test_more_requests_than_the_burst_are_too_many() -> None:
    handler = protected(WebSettings(interval=1000.0, burst=3, users={"alice": ALICE}))
    codes = [ask(handler, basic("alice", "correct horse"))[0] for _ in range(5)]
    assert codes == [200] * 3 + [429] * 2
    handler = handler.use(WebSettings(interval=1000.0, burst=3))
    assert ask(handler)[0] == 429  # the same limit goes on
    handler = handler.use(WebSettings())
    assert ask(handler)[0] == 200


def test_after_an_interval_one_more_request_is_answered() -> None:
    limiter = auth.Limiter(0.5, 1)
    until(lambda: not limiter.allows(), every=0)  # again on a machine that stands still for half a second meanwhile
    until(limiter.allows)


def test_headers_are_set_once_and_for_every_answer() -> None:
    settings = WebSettings(headers=(("X-Frame-Options", "deny"), ("x-content-type-options", "nosniff")),
                        users={"alice": ALICE})  # fmt: skip
    for authorization in ("", basic("alice", "correct horse")):
        _, headers, _ = ask(protected(settings), authorization)
        assert headers["X-Frame-Options"] == "deny"
        assert [name.lower() for name in headers].count("x-content-type-options") == 1


def test_a_refused_head_has_no_body_that_would_be_read_as_the_next_answer() -> None:
    for settings in (WebSettings(users={"alice": ALICE}), WebSettings(interval=1e9, burst=0)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            connection = Connection(Service(Access(protected(settings))), ours, "")
            answers = []
            for method in (b"GET", b"HEAD"):
                theirs.sendall(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
                connection.work()
                answers.append(theirs.recv(65536).partition(b"\r\n\r\n"))
        (headers, _, body), (head, _, nothing) = answers
        assert b"\r\nContent-Length: %d\r\n" % len(body) in headers
        assert len(body) > 0
        assert nothing == b""
        assert re.sub(b"Date: .*", b"", head) == re.sub(b"Date: .*", b"", headers)
