"""Passwords, the rate limit and headers in front of an application."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from typing import Any

import bcrypt
import pytest

from exporter.web import auth
from exporter.web.config.settings import Settings
from tests.e2e.certificates import hashed

ALICE, BOB = hashed("correct horse"), hashed("battery staple")


def basic(name: str, password: str | bytes) -> str:
    secret = password.encode() if isinstance(password, str) else password
    return "Basic " + base64.b64encode(name.encode() + b":" + secret).decode()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("X-Content-Type-Options", "nosniff"), ("Content-Length", "2")])
    return [b"ok"]


def ask(
    guarded: auth.Protected, authorization: str = "", address: str = "192.0.2.1", method: str = "GET"
) -> tuple[str, dict[str, str], bytes]:
    said: list[Any] = []
    environ = {"REQUEST_METHOD": method, "REMOTE_ADDR": address}
    environ |= {"HTTP_AUTHORIZATION": authorization} if authorization else {}
    body = b"".join(guarded(environ, lambda *given: said.extend(given)))
    assert len(dict(said[1])) == len(said[1]), "a header twice"
    return said[0], dict(said[1]), body


def guarded(settings: Settings) -> auth.Protected:
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
        (basic("alice", "correct horse"), "200 OK"),
        (basic("bob", "battery staple"), "200 OK"),
        ("basic " + basic("alice", "correct horse").partition(" ")[2], "200 OK"),
        (basic("alice", "battery staple"), "401 Unauthorized"),
        (basic("carol", "correct horse"), "401 Unauthorized"),
        (basic("alice", ""), "401 Unauthorized"),
        (basic("alice", b"\xff\x00" * 100), "401 Unauthorized"),
        ("", "401 Unauthorized"),
        ("Basic", "401 Unauthorized"),
        ("Basic !!!", "401 Unauthorized"),
        ("Basic " + base64.b64encode(b"alice").decode(), "401 Unauthorized"),
        ("Basic " + base64.b64encode(b"\xff:x").decode(), "401 Unauthorized"),
        ("Bearer " + base64.b64encode(b"alice:correct horse").decode(), "401 Unauthorized"),
    ],
)
def test_only_a_user_with_his_password_comes_in(header: str, code: str) -> None:
    found, headers, body = ask(guarded(Settings(users={"alice": ALICE, "bob": BOB})), header)
    assert found == code
    assert (body == b"ok") is (code == "200 OK")
    assert headers.get("WWW-Authenticate") == (None if body == b"ok" else 'Basic realm="bpf-exporter"')


def test_a_password_costs_one_bcrypt_run_however_often_it_comes(checks: list[str]) -> None:
    door = guarded(Settings(users={"alice": ALICE}))
    for _ in range(5):
        assert ask(door, basic("alice", "correct horse"))[0] == "200 OK"
        assert ask(door, basic("alice", "wrong"))[0] == "401 Unauthorized"
    assert len(checks) == 2


def test_a_name_that_there_is_not_costs_a_run_as_well_and_always_the_same(checks: list[str]) -> None:
    door = guarded(Settings(users={"alice": ALICE, "bob": BOB}))
    for name in ("carol", "dave", "erin"):
        checks.clear()
        for password in ("a", "b", "c"):
            assert ask(door, basic(name, password))[0] == "401 Unauthorized"
        assert len(checks) == 3
        assert len(set(checks)) == 1


def test_the_hash_of_another_user_does_not_let_in_who_is_none() -> None:
    door = guarded(Settings(users={"alice": ALICE}))
    assert ask(door, basic("alice", "correct horse"))[0] == "200 OK"
    assert ask(door, basic("nobody", "correct horse"))[0] == "401 Unauthorized"


def test_no_more_passwords_are_remembered_than_there_is_room_for(checks: list[str]) -> None:
    door = guarded(Settings(users={"alice": ALICE}))
    ask(door, basic("alice", "correct horse"))
    for number in range(auth.REMEMBERED + 1):
        ask(door, basic("alice", f"wrong {number}"))
    checks.clear()
    ask(door, basic("alice", "correct horse"))  # no crowd of wrong ones makes it forgotten
    assert checks == []
    ask(door, basic("alice", "wrong 0"))
    assert len(checks) == 1


def test_a_changed_password_holds_from_the_next_request_on() -> None:
    door = guarded(Settings(users={"alice": ALICE}))
    assert ask(door, basic("alice", "correct horse"))[0] == "200 OK"
    door = door.use(Settings(users={"alice": BOB}))
    assert ask(door, basic("alice", "correct horse"))[0] == "401 Unauthorized"
    assert ask(door, basic("alice", "battery staple"))[0] == "200 OK"


def test_a_crowd_of_wrong_passwords_leaves_threads_for_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    door = guarded(Settings(users={"alice": ALICE}))
    assert ask(door, basic("alice", "correct horse"))[0] == "200 OK"
    same: list[str] = []
    others: list[str] = []
    known: list[str] = []

    def nested(password: bytes, hashed: bytes) -> bool:
        """While this one is looked at, others come: of the same address, of another one, and one that is known."""
        depth = len(others) + 1
        same.append(ask(door, basic("alice", f"same {depth}"), f"192.0.2.{depth}")[0])
        known.append(ask(door, basic("alice", "correct horse"), f"192.0.2.{depth}")[0])
        others.append("")
        others[depth - 1] = ask(door, basic("alice", f"other {depth}"), f"192.0.2.{depth + 1}")[0]
        return False

    monkeypatch.setattr(auth, "checkpw", nested)
    assert ask(door, basic("alice", "first"))[0] == "401 Unauthorized"
    assert same == ["429 Too Many Requests"] * auth.CHECKS
    assert known == ["200 OK"] * auth.CHECKS
    assert others == ["401 Unauthorized"] * (auth.CHECKS - 1) + ["429 Too Many Requests"]


def test_more_requests_than_the_burst_are_too_many() -> None:
    door = guarded(Settings(interval=1000.0, burst=3, users={"alice": ALICE}))
    codes = [ask(door, basic("alice", "correct horse"))[0] for _ in range(5)]
    assert codes == ["200 OK"] * 3 + ["429 Too Many Requests"] * 2
    door = door.use(Settings(interval=1000.0, burst=3))
    assert ask(door)[0] == "429 Too Many Requests"  # the same limit goes on
    door = door.use(Settings())
    assert ask(door)[0] == "200 OK"


def test_after_an_interval_one_more_request_is_answered() -> None:
    limiter = auth.Limiter(0.5, 1)
    end = time.monotonic() + 60
    while limiter.allows():  # a machine that stands still for half a second between two calls
        assert time.monotonic() < end
    while not limiter.allows():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_headers_are_set_once_and_for_every_answer() -> None:
    settings = Settings(headers=(("X-Frame-Options", "deny"), ("x-content-type-options", "nosniff")),
                        users={"alice": ALICE})  # fmt: skip
    for authorization in ("", basic("alice", "correct horse")):
        _, headers, _ = ask(guarded(settings), authorization)
        assert headers["X-Frame-Options"] == "deny"
        assert [name.lower() for name in headers].count("x-content-type-options") == 1


def test_a_refused_head_has_no_body_that_would_be_read_as_the_next_answer() -> None:
    for settings in (Settings(users={"alice": ALICE}), Settings(interval=1e9, burst=0)):
        code, headers, body = ask(guarded(settings), method="GET")
        assert int(headers["Content-Length"]) == len(body) > 0
        assert ask(guarded(settings), method="HEAD") == (code, headers, b"")
