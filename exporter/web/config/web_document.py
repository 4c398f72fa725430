"""The keys of a web configuration file and their types (prometheus/exporter-toolkit, docs/web-configuration.md)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, PlainValidator

from exporter.config.document import Document
from exporter.config.durations import GO_DURATION, seconds
from exporter.config.value_types import wrong
from exporter.kernel.near import did_you_mean

# Go's names of cipher suites for TLS 1.2 (crypto/tls, CipherSuites()) -> OpenSSL's names.
CIPHERS = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
# Cipher suites of TLS 1.3 can be named and are always enabled, as in Go.
CIPHERS_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
# Headers that can be set, and their allowed values: () for any.
HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}
_ONLY = "RequireAndVerifyClientCert"
_UNVERIFIED = f"takes certificates that nobody has verified, which Python's ssl cannot; write {_ONLY}"


def _cipher(name: str) -> str:
    if name not in CIPHERS and name not in CIPHERS_13:
        raise wrong(f"is no cipher suite of today; {did_you_mean(name, [*CIPHERS, *CIPHERS_13])}")
    return name


def _curve(name: str) -> str:
    if name == "X25519":
        raise wrong("cannot be demanded by Python's ssl; it is taken by itself where no curve is named")
    if name not in CURVES:
        raise wrong(f"is no curve; {did_you_mean(name, CURVES)}")
    return name


def _version(name: str) -> str:
    if name in ("TLS10", "TLS11"):
        raise wrong("is broken and not spoken here; write TLS12 or TLS13")
    if name not in ("TLS12", "TLS13"):
        raise wrong("is no version of TLS; write TLS12 or TLS13")
    return name


def _client_auth(name: str) -> str:
    if name in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise wrong(_UNVERIFIED)
    known = ("NoClientCert", "VerifyClientCertIfGiven", _ONLY)
    if name not in known:
        raise wrong(f"is not known; {did_you_mean(name, known)}")
    return name


def _interval(value: Any) -> float:
    """Return the seconds of a duration of Go: 1s, 1m30s, 100ms; 0 needs no unit."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if text == "0":
        return 0.0
    interval = seconds(text, GO_DURATION)
    if interval is None:
        raise wrong("is no duration; write one like 1s, 100ms or 1m30s, or 0 for no limit")
    return interval


CipherName = Annotated[str, AfterValidator(_cipher)]
CurveName = Annotated[str, AfterValidator(_curve)]


class TlsDocument(Document):
    cert: str | None = None
    """the certificate as PEM text, instead of cert_file"""
    key: str | None = None
    """the private key as PEM text, instead of key_file"""
    client_ca: str | None = None
    """the authorities of client certificates as PEM text, instead of client_ca_file"""
    cert_file: str | None = None
    """file of the certificate and of those between it and the authority, PEM"""
    key_file: str | None = None
    """file of its private key, PEM, not readable by everybody"""
    client_auth_type: Annotated[str, AfterValidator(_client_auth)] = "NoClientCert"
    """NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"""
    client_ca_file: str | None = None
    """file of the authorities whose client certificates are accepted, PEM"""
    client_allowed_sans: list[str] | None = None
    """names of which a client's certificate must have one: DNS names, addresses, e-mail addresses, URIs"""
    min_version: Annotated[str, AfterValidator(_version)] = "TLS12"
    """TLS12 or TLS13"""
    max_version: Annotated[str, AfterValidator(_version)] = "TLS13"
    """TLS12 or TLS13"""
    cipher_suites: list[CipherName] = Field(default_factory=list)
    """for TLS 1.2, as Go names them"""
    prefer_server_cipher_suites: bool = True
    """false: the client's order of them counts"""
    curve_preferences: list[CurveName] = Field(default_factory=list)
    """one of CurveP256, CurveP384, CurveP521"""


class HttpDocument(Document):
    http2: bool = True
    """has no effect: HTTP/1.1 is spoken"""
    headers: dict[str, str] = Field(default_factory=dict)
    """headers of every answer"""


class RateLimitDocument(Document):
    interval: Annotated[float, PlainValidator(_interval)] = 0.0
    """in which one more request is allowed, like 1s; 0: no limit"""
    burst: Annotated[int, Field(ge=0)] = 0
    """requests that are allowed at once"""


class WebDocument(Document):
    tls_server_config: TlsDocument = TlsDocument()
    """certificates"""
    http_server_config: HttpDocument = HttpDocument()
    """HTTP"""
    rate_limit: RateLimitDocument = RateLimitDocument()
    """requests in a time"""
    basic_auth_users: Annotated[Any, PlainValidator(lambda value: value)] = None
    """name: bcrypt hash of the password"""
