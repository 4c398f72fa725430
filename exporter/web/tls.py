"""TLS on sockets that do not block: certificates as text -> handshakes with clients that may connect."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from exporter.spec import TlsSettings
from exporter.web.connection import ClientRefusedError, WouldBlock, WrongPortError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # default of TLS 1.2; Debian's own list has some without ECDHE
SENT = 256 << 10  # bytes at once; OpenSSL splits them into records of 16 kB
# Failures that are logged as a refusal by this server; every other one is the client's doing.
_OURS = {"CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE", "UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER"}
_GREETED = "greeted"
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}


class TlsError(ValueError):
    """Certificates, keys or names that OpenSSL does not accept; the text says which."""


class TlsSecurity:
    """connection.Security by Python's ssl."""

    def __init__(self, tls: TlsSettings) -> None:
        """TlsError."""
        self._context = context(tls)
        self._context.sni_callback = _greeted
        self._allowed = frozenset(tls.allowed_sans)

    def wrap(self, sock: socket.socket) -> socket.socket:
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def unwrap(self, sock: socket.socket) -> socket.socket:
        below = socket.socket(fileno=sock.detach())
        below.setblocking(False)
        return below

    def handshake(self, sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        try:
            with _would_block():
                sock.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                raise WrongPortError from error
            if error.reason in _OURS:
                raise ClientRefusedError(f"TLS: {_reason(error)}") from error
            raise
        if reason := refusal(sock.getpeercert(), self._allowed):
            raise ClientRefusedError(reason)

    def has_greeted(self, sock: socket.socket) -> bool:
        return hasattr(sock, _GREETED)

    def receive(self, sock: socket.socket, size: int) -> bytes:
        with _would_block():
            return sock.recv(size)

    def has_more(self, sock: socket.socket) -> bool:
        assert isinstance(sock, ssl.SSLSocket)
        return sock.pending() > 0

    def send(self, sock: socket.socket, data: memoryview) -> int:
        with _would_block():
            return sock.send(data[:SENT])

    def close(self, sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        with suppress(OSError, ValueError):  # the client need not answer
            sock.unwrap()


def _greeted(sock: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
    """Mark the socket. OpenSSL calls this when a ClientHello is complete, with or without a server name."""
    setattr(sock, _GREETED, True)


@contextmanager
def _would_block() -> Iterator[None]:
    try:
        yield
    except ssl.SSLWantReadError:
        raise WouldBlock(to_write=False) from None
    except ssl.SSLWantWriteError:
        raise WouldBlock(to_write=True) from None


def context(tls: TlsSettings) -> ssl.SSLContext:
    """Return the context that wraps sockets. TlsError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version, made.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    made.set_alpn_protocols(["http/1.1"])
    made.options |= ssl.OP_NO_RENEGOTIATION  # OpenSSL before 3.0 lets clients renegotiate again and again
    if not tls.server_chooses:
        made.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    _certificate(made, tls)
    try:
        made.set_ciphers(tls.ciphers or CIPHERS)
    except ssl.SSLError as error:
        raise TlsError(f"cipher_suites: {_reason(error)} (this host's OpenSSL has none of them)") from error
    if tls.curve:
        try:
            made.set_ecdh_curve(tls.curve)
        except (ValueError, ssl.SSLError) as error:
            raise TlsError(f"curve_preferences: {error} (this host's OpenSSL does not have it)") from error
    if tls.client_ca:
        try:
            made.load_verify_locations(cadata=tls.client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"client_ca: {_reason(error)} (certificates in PEM, one after another)") from error
        made.verify_mode = ssl.CERT_REQUIRED if tls.requires_client else ssl.CERT_OPTIONAL
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate can be an authority, as in Go
    return made


def _certificate(made: ssl.SSLContext, tls: TlsSettings) -> None:
    with _file(tls.cert) as cert, _file(tls.key) as key:
        try:
            made.load_cert_chain(cert, key, password=_no_password)
        except ssl.SSLError as error:
            raise TlsError(f"certificate and key: {_reason(error)}{_hint(error)}") from error
        except _EncryptedError:
            raise TlsError("key: it is encrypted (nobody is there to ask: give one without a passphrase)") from None


class _EncryptedError(Exception):
    """OpenSSL asked for a passphrase."""


def _no_password() -> str:
    raise _EncryptedError


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Yield a name under which OpenSSL can read the text; nothing is written to a disk."""
    fd = os.memfd_create("pem")
    try:
        with open(fd, "w", closefd=False) as stream:
            stream.write(text)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _reason(error: Exception) -> str:
    """Return OpenSSL's reason in words, without the line of Python's source."""
    reason = getattr(error, "reason", None) or re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", str(error))
    words = reason.lower().replace("_", " ")
    return "not in PEM" if words in ("pem lib", "no start line") else words


def _hint(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return " (the key belongs to another certificate)"
    return " (PEM, as openssl writes it: first the server's certificate, then those between it and the authority)"


def refusal(certificate: Mapping[str, Any] | None, allowed: frozenset[str]) -> str:
    """Return the reason to refuse a client with this certificate (ssl's getpeercert); "" if it may connect."""
    if not allowed:
        return ""
    names = sans(certificate or {})
    return "" if names & allowed else f"its certificate is for {', '.join(sorted(names)) or 'no name'}"


def sans(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Return the subject alternative names that can be allowed: DNS names, addresses, e-mail addresses, URIs."""
    kinds = {"DNS", "IP Address", "email", "URI"}
    return frozenset(
        address(value) if kind == "IP Address" else value
        for kind, value in certificate.get("subjectAltName", ())
        if kind in kinds
    )


def address(text: str) -> str:
    """Return an IP address as Go and Python spell it; OpenSSL writes 2001:DB8:0:0:0:0:0:1."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return text
