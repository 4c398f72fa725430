"""What a web configuration file says, without its files: as JSON it goes from the supervisor to the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Tls:
    """cert, key, client_ca  PEM texts; client_ca "" for no client certificates
    requires_client          whether a client without a certificate is refused
    allowed_sans             names of which a client's certificate must have one; () for any
    min_version, max_version  TLS12 or TLS13
    ciphers                  of TLS 1.2, as OpenSSL names them; "" for its choice
    server_chooses           which cipher is taken: the first of ours, or of the client's
    curve                    as OpenSSL names it; "" for its choice
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
    """What was given to `to_json`. TypeError, KeyError or AttributeError for anything else."""
    rest = dict(document)
    tls, headers = rest.pop("tls"), rest.pop("headers")
    if tls is not None:
        tls = Tls(**{**tls, "allowed_sans": tuple(tls["allowed_sans"])})
    return Settings(tls=tls, headers=tuple((name, value) for name, value in headers), **rest)
