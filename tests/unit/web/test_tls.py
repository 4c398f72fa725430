"""TLS on the HTTP server, with clients of Python's ssl and certificates of openssl."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from exporter.spec import WebSettings
from exporter.web.access import AccessControl
from exporter.web.application import Request, Response
from exporter.web.config import web_file
from exporter.web.connection import Connection, Service
from exporter.web.http_server import HttpServer
from exporter.web.listening import listen
from exporter.web.tls import sans
from tests.e2e import certificates

Logged = Callable[[], list[str]]

ENOUGH = 30.0  # seconds; for what must come at once on an idle machine
PAGE = b"a line of metrics 1\n" * 500_000  # more than the buffers of both sockets take


def application(request: Request) -> Response:
    body = PAGE if request.path == "/page" else b"hello\n"
    return Response(200, (("Content-Type", "text/plain"),), [body])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> certificates.Pki:
    made = certificates.make(tmp_path_factory.mktemp("pki"))
    made.issue(
        "prometheus", "DNS:prometheus.example,IP:192.0.2.7,IP:2001:db8::7,URI:spiffe://example/p,email:p@example"
    )
    made.issue("stranger", "DNS:stranger.example")
    return made


class Secure:
    """A server with what a web configuration file asks for."""

    def __init__(self, pki: certificates.Pki) -> None:
        self.pki = pki
        self._listener = listen("127.0.0.1:0")
        self.port = self._listener.getsockname()[1]
        self._server = HttpServer([self._listener], application)
        self._access = AccessControl(self._server)
        self._thread = threading.Thread(target=self._server.serve, daemon=True)

    def use(self, **tls: object) -> None:
        path = self.pki.web_file(**tls)  # type: ignore[arg-type]
        self._access.apply(web_file.load(path, {path.stat().st_uid}).settings)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(ENOUGH)

    def connect(self, client: str = "", **options: ssl.TLSVersion) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.pki.authority)
        for name, value in options.items():
            setattr(context, name, value)
        if client:
            context.load_cert_chain(self.pki.directory / f"{client}.crt", self.pki.directory / f"{client}.key")
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=ENOUGH)
        return context.wrap_socket(sock, server_hostname="localhost")

    def get(self, client: str = "", path: str = "/", **options: ssl.TLSVersion) -> bytes:
        """The body; an OSError where the server does not want this client: TLS 1.3 says so after the handshake."""
        with self.connect(client, **options) as sock:
            sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode())
            text = b"".join(iter(lambda: sock.recv(65536), b""))
        if not text:
            raise ConnectionResetError
        return text.partition(b"\r\n\r\n")[2]


@pytest.fixture
def secure(pki: certificates.Pki, logged: Logged) -> Iterator[Secure]:
    made = Secure(pki)
    made.use()
    made.start()
    yield made
    made.stop()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_2_and_1_3_are_spoken_and_nothing_older(secure: Secure) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert secure.get(minimum_version=version, maximum_version=version) == b"hello\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    sock = socket.create_connection(("127.0.0.1", secure.port), timeout=ENOUGH)
    with sock, pytest.raises(ssl.SSLError, match=r"(?i)protocol.version|alert"):
        context.wrap_socket(sock)


def test_a_page_that_fills_every_buffer_comes_whole(secure: Secure) -> None:
    assert secure.get(path="/page") == PAGE


def test_requests_follow_each_other_on_one_connection(secure: Secure) -> None:
    one = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n"
    with secure.connect() as sock:
        sock.sendall(
            one % b"" + one % b"" + one % b"Connection: close\r\n"
        )  # in one record: OpenSSL has it, epoll does not
        text = b"".join(iter(lambda: sock.recv(65536), b""))
    assert text.count(b"hello\n") == 3


def test_who_speaks_http_is_told_what_to_write(secure: Secure) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), timeout=ENOUGH) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        text = b"".join(iter(lambda: sock.recv(65536), b""))
    assert text.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert text.endswith(b"this port speaks HTTPS: write https://\n")


def test_only_clients_of_the_authority_come_in(secure: Secure, tmp_path: Path, logged: Logged) -> None:
    secure.use(client_auth_type="RequireAndVerifyClientCert", client_ca_file="authority.crt")
    assert secure.get("prometheus") == b"hello\n"
    with pytest.raises(OSError):  # noqa: PT011 - one of several, by the version of TLS
        secure.get()
    other = certificates.make(tmp_path)
    other.issue("prometheus", "DNS:prometheus.example")
    with pytest.raises(OSError):  # noqa: PT011
        Secure.get(_with_certificates_of(secure, other), "prometheus")
    assert any("client refused" in line and "certificate" in line for line in logged())


def _with_certificates_of(secure: Secure, other: certificates.Pki) -> Secure:
    """The same server, asked by clients of another authority, who trust the server's."""
    stranger = object.__new__(Secure)
    stranger.port = secure.port
    stranger.pki = other
    other.authority.write_text(secure.pki.authority.read_text())
    return stranger


def test_a_certificate_is_asked_for_and_verified_if_it_is_given(secure: Secure) -> None:
    secure.use(client_auth_type="VerifyClientCertIfGiven", client_ca_file="authority.crt")
    assert secure.get() == secure.get("prometheus") == b"hello\n"


@pytest.mark.parametrize(
    "name", ["prometheus.example", "192.0.2.7", "2001:DB8:0:0::7", "spiffe://example/p", "p@example"]
)
def test_a_client_comes_in_by_an_allowed_name(secure: Secure, name: str, logged: Logged) -> None:
    secure.use(
        client_auth_type="RequireAndVerifyClientCert",
        client_ca_file="authority.crt",
        client_allowed_sans=["nobody.example", name],
    )
    assert secure.get("prometheus") == b"hello\n"
    with pytest.raises(OSError):  # noqa: PT011
        secure.get("stranger")
    (line,) = [line for line in logged() if "client refused" in line]
    assert 'error="its certificate is for stranger.example"' in line


def test_names_are_compared_as_they_are_written_by_kind() -> None:
    certificate = {"subjectAltName": (("DNS", "a"), ("IP Address", "0:0:0:0:0:0:0:1"), ("othername", "<unsupported>"))}
    assert sans(certificate) == {"a", "::1"}
    assert sans({}) == frozenset()


def test_a_client_that_leaves_before_tls_begins_is_not_worth_a_line(pki: certificates.Pki, logged: Logged) -> None:
    server = Secure(pki)
    server.use()
    for said in (b"", b"x"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(said)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close(2) resets it
    server.start()
    try:
        assert server.get() == b"hello\n"
    finally:
        server.stop()
    assert not [line for line in logged() if "error" in line]


def test_no_request_finds_passwords_gone_and_certificates_not_yet_wanted(pki: certificates.Pki, logged: Logged) -> None:
    answers: list[bytes] = []

    class Watched(Service):
        """As if a request came before each of what a change of settings sets."""

        connection: Connection
        client: socket.socket

        def __setattr__(self, name: str, value: object) -> None:
            if hasattr(self, "client"):
                self.client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if self.connection.work() is not None:
                    answers.append(self.client.recv(65536).partition(b"\r\n")[0])
            super().__setattr__(name, value)

    server = HttpServer([], application)
    server.service = watched = Watched(server.service.access)
    access = AccessControl(server)
    access.apply(WebSettings(users={"alice": certificates.hashed("correct horse")}))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(ENOUGH)
        watched.connection = Connection(watched, ours, "")
        watched.client = theirs
        path = pki.web_file(client_auth_type="RequireAndVerifyClientCert", client_ca_file=str(pki.authority))
        access.apply(web_file.load(path, {path.stat().st_uid}).settings)
        assert set(answers) == {b"HTTP/1.1 401 Unauthorized"}
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert watched.connection.work() is None, "a connection without a certificate goes on"


def test_another_certificate_is_used_from_the_next_connection_on(secure: Secure) -> None:
    with secure.connect() as before:
        first = before.getpeercert(binary_form=True)
        secure.pki.issue("server", "DNS:localhost,IP:127.0.0.1")
        secure.use()
        with secure.connect() as after:
            assert after.getpeercert(binary_form=True) != first
        # Who came in before may not be somebody who would come in now.
        before.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            assert before.recv(65536) == b""


def test_the_cipher_and_the_curve_are_those_of_the_file(secure: Secure) -> None:
    secure.use(cipher_suites=["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"], curve_preferences=["CurveP384"])
    with secure.connect(maximum_version=ssl.TLSVersion.TLSv1_2) as sock:
        assert sock.cipher() == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)
    secure.use(min_version="TLS13")
    with pytest.raises(ssl.SSLError):
        secure.connect(maximum_version=ssl.TLSVersion.TLSv1_2)
