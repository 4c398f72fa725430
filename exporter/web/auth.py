"""Who may ask, and how often: headers, rate limit and passwords in front of an application (PEP 3333).

As exporter-toolkit has them: first the rate limit, then the headers, then the password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bcrypt import checkpw

from exporter.web.config.settings import Settings

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[Any]]

REMEMBERED = 128  # passwords that were right, and as many that were wrong
CHECKS = 3  # passwords that are looked at at once: each takes 50 ms of a CPU, and scrapes want threads too
LONGEST = 72  # bytes of a password that bcrypt looks at


class Limiter:
    """A token bucket: `burst` requests at once, and one more every `interval` seconds. For any number of threads."""

    def __init__(self, interval: float, burst: int) -> None:
        self.interval, self.burst = interval, burst
        self._tokens, self._at = float(burst), time.monotonic()
        self._lock = threading.Lock()

    def allows(self) -> bool:
        if not self.interval:
            return True
        with self._lock:
            now = time.monotonic()
            self._tokens = min(float(self.burst), self._tokens + (now - self._at) / self.interval)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class BusyError(Exception):
    """Too many passwords are being looked at, or another one of this client."""


class Passwords:
    """Basic authentication (RFC 7617). A password is put through bcrypt once and then known by a keyed hash.

    A name that there is not takes as long as one that there is: it is looked at with the hash of another one, the same
    for the same name.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._known: dict[bool, OrderedDict[bytes, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._lock = threading.Lock()
        self._checking: set[str] = set()  # addresses; one that guesses leaves room for another's first password

    def admits(self, users: Mapping[str, str], header: str, address: str) -> bool:
        """Whether an Authorization header, of this client address, has the name and password of one of these users
        (bcrypt hashes by name; what is known of a hash is known as long as it is there). BusyError."""
        given = _credentials(header)
        if given is None:
            return False
        name, password = given
        hashed = users.get(name)
        is_user = hashed is not None
        if hashed is None:
            others = sorted(users.values())
            hashed = others[int.from_bytes(self._digest(name.encode())[:8], "big") % len(others)]
        key = self._digest(b"%d %s %d %s %s" % (is_user, hashed.encode(), len(name), name.encode(), password))
        with self._lock:
            for answer, known in self._known.items():
                if key in known:
                    known.move_to_end(key)
                    return answer
            if address in self._checking or len(self._checking) >= CHECKS:
                raise BusyError
            self._checking.add(address)
        try:
            right = _is_password(password, hashed) and is_user
        finally:
            with self._lock:
                self._checking.remove(address)
        with self._lock:
            known = self._known[right]
            known[key] = None
            if len(known) > REMEMBERED:
                known.popitem(last=False)
        return right

    def _digest(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, hashlib.sha256)


def _is_password(password: bytes, hashed: str) -> bool:
    try:
        return checkpw(password[:LONGEST], hashed.encode())
    except ValueError:  # bytes that no hash was ever made of
        return False


def _credentials(header: str) -> tuple[str, bytes] | None:
    """Name and password of a Basic header; None for anything else."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


class Protected:
    """An application behind settings. Other settings make another one: a request is held up by these or by those, and
    not by a part of each."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._passwords = Passwords()
        self._settings = Settings()
        self._limiter = Limiter(0, 0)

    def use(self, settings: Settings) -> Protected:
        """The application behind these. What is known of passwords stays, and so does a rate limit that is the same."""
        made = Protected(self._application)
        made._passwords, made._settings = self._passwords, settings
        same = (settings.interval, settings.burst) == (self._limiter.interval, self._limiter.burst)
        made._limiter = self._limiter if same else Limiter(settings.interval, settings.burst)
        return made

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[Any]:
        settings = self._settings
        if not self._limiter.allows():
            return _refused(environ, start_response, "429 Too Many Requests", ())

        def start(code: str, headers: list[tuple[str, str]]) -> Any:
            ours = {name.lower() for name, _ in settings.headers}
            return start_response(code, [*(h for h in headers if h[0].lower() not in ours), *settings.headers])

        if settings.users:
            try:
                header, address = environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", "")
                if not self._passwords.admits(settings.users, header, address):
                    challenge = [("WWW-Authenticate", 'Basic realm="bpf-exporter"')]
                    return _refused(environ, start, "401 Unauthorized", challenge)
            except BusyError:
                return _refused(environ, start, "429 Too Many Requests", [("Retry-After", "1")])
        return self._application(environ, start)


def _refused(
    environ: Mapping[str, Any], start_response: Callable[..., Any], code: str, headers: Iterable[tuple[str, str]]
) -> Iterable[bytes]:
    body = code.partition(" ")[2].encode() + b"\n"
    start_response(code, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *headers])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]  # it would be read as the next answer
