"""The settings of a web configuration with the contents of its files; the supervisor sends them to the server as
JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Tls:
    """cert, key, client_ca  PEM texts; client_ca "" for no client certificates
    requires_client          refuse clients without a certificate
    allowed_sans             a client's certificate must have one of these names; () for any
    min_version, max_version  TLS12 or TLS13
    ciphers                  of TLS 1.2, as OpenSSL names them; "" for OpenSSL's default
    server_chooses           prefer the server's order of ciphers to the client's
    curve                    as OpenSSL names it; "" for OpenSSL's default
    """

    cert: str
    key: str = field(repr=False)
    client_ca: str = ""
    requires_client: bool = False
    allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: str = ""
    server_chooses: bool = True
    curve: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """tls      None for none
    headers   of every answer
    interval  seconds in which one more request is allowed; 0 for any number
    burst     requests that are allowed at once
    users     name -> bcrypt hash; empty for no passwords
    """

    tls: Tls | None = None
    headers: tuple[tuple[str, str], ...] = ()
    interval: float = 0.0
    burst: int = 0
    users: Mapping[str, str] = field(default_factory=dict, repr=False)


def to_json(settings: Settings) -> dict[str, Any]:
    return asdict(settings)


def from_json(document: Mapping[str, Any]) -> Settings:
    """Return the settings of a `to_json` document. TypeError, KeyError or AttributeError for other values."""
    rest = dict(document)
    tls, headers = rest.pop("tls"), rest.pop("headers")
    if tls is not None:
        tls = Tls(**{**tls, "allowed_sans": tuple(tls["allowed_sans"])})
    return Settings(tls=tls, headers=tuple((name, value) for name, value in headers), **rest)
