"""The rate limit, headers and passwords in front of a handler, in the order of exporter-toolkit: first the rate limit,
then the headers, then the password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from bcrypt import checkpw

from exporter.spec import WebSettings
from exporter.web.application import Handler, Request, Response, text_response

REMEMBERED = 128  # passwords that were right, and as many that were wrong
CHECKS = 3  # bcrypt runs at the same time: each takes 50 ms of a CPU, and scrapes need threads too
LONGEST = 72  # bytes of a password that bcrypt uses


class Limiter:
    """A token bucket: `burst` requests at once, and one more every `interval` seconds. For any number of threads."""

    def __init__(self, interval: float, burst: int) -> None:
        self.interval, self.burst = interval, burst
        self._tokens, self._at = float(burst), time.monotonic()
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Take a token. Return False if none is left."""
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
    """Too many passwords are being checked, or another one of this client."""


class Passwords:
    """Basic authentication (RFC 7617). bcrypt checks a password once; a keyed hash remembers the result.

    An unknown name takes as long as a known one: bcrypt checks it against the hash of a user, the same one each time.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._known: dict[bool, OrderedDict[bytes, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._lock = threading.Lock()
        self._checking: set[str] = set()  # addresses, each once: a client that guesses leaves room for other clients

    def admits(self, users: Mapping[str, str], header: str, address: str) -> bool:
        """Return True if an Authorization header from this client address has the name and password of one of these
        users (name -> bcrypt hash). BusyError."""
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
    except ValueError:  # bytes that bcrypt refuses to hash
        return False


def _credentials(header: str) -> tuple[str, bytes] | None:
    """Return name and password of a Basic header; None for anything else."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


class Protected:
    """A handler behind settings. `use` makes another one for other settings: a request meets these settings or those,
    never a part of each."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._passwords = Passwords()
        self._settings = WebSettings()
        self._limiter = Limiter(0, 0)

    def use(self, settings: WebSettings) -> Protected:
        """Return the handler behind other settings. It remembers the same passwords, and keeps a rate limit that has
        not changed."""
        made = Protected(self._handler)
        made._passwords, made._settings = self._passwords, settings
        same = (settings.interval, settings.burst) == (self._limiter.interval, self._limiter.burst)
        made._limiter = self._limiter if same else Limiter(settings.interval, settings.burst)
        return made

    def __call__(self, request: Request) -> Response:
        if not self._limiter.allows():
            return text_response(429, "Too Many Requests")
        response = self._authenticated(request)
        ours = {name.lower() for name, _ in self._settings.headers}
        others = (header for header in response.headers if header[0].lower() not in ours)
        return replace(response, headers=(*others, *self._settings.headers))

    def _authenticated(self, request: Request) -> Response:
        users = self._settings.users
        try:
            if users and not self._passwords.admits(users, request.header("authorization"), request.address):
                return text_response(401, "Unauthorized", ("WWW-Authenticate", 'Basic realm="bpf-exporter"'))
        except BusyError:
            return text_response(429, "Too Many Requests", ("Retry-After", "1"))
        return self._handler(request)
