"""Web configuration files: what is read of them, and every mistake with its place."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

import bcrypt
import pytest

from exporter.config import ConfigErrors
from exporter.config.sources import changed
from exporter.ipc.protocol import WebConfigRead
from exporter.spec import WebSettings
from exporter.supervisor.config_reader import read_in_child, read_web_config
from exporter.web.config import web_file
from tests import daemon
from tests.e2e import certificates

HASH = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"  # of exporter-toolkit's example


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> certificates.Pki:
    return certificates.make(tmp_path_factory.mktemp("pki"))


def mistakes(path: Path, text: str, owners: Collection[int] | None = None) -> list[str]:
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigErrors) as caught:
        web_file.load(path, owners if owners is not None else {os.geteuid()})
    return [str(finding).removeprefix(f"{path}:") for finding in caught.value.findings]


def loaded(path: Path, text: str) -> web_file.LoadedWebConfig:
    path.write_text(text)
    path.chmod(0o600)
    return web_file.load(path, {os.geteuid()})


def test_a_whole_file_of_exporter_toolkit_is_understood(pki: certificates.Pki) -> None:
    found = loaded(
        pki.directory / "whole.yaml",
        f"""\
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: authority.crt
  client_allowed_sans: [prometheus.example, 2001:DB8::0:1, "spiffe://example/prometheus"]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: " max-age=31536000 "
    X-Frame-Options: deny
    X-XSS-Protection: ""
rate_limit: {{interval: 1m30s, burst: 20}}
basic_auth_users:
  alice: {HASH}
""",
    )
    assert found.warnings == ()
    secure = found.settings.tls
    assert secure is not None
    assert secure.cert == (pki.directory / "server.crt").read_text()
    assert secure.allowed_sans == ("prometheus.example", "2001:db8::1", "spiffe://example/prometheus")
    assert (secure.requires_client, secure.ciphers, secure.server_chooses, secure.curve) == (
        True,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        False,
        "prime256v1",
    )
    assert found.settings.headers == (("Strict-Transport-Security", "max-age=31536000"), ("X-Frame-Options", "deny"))
    assert (found.settings.interval, found.settings.burst) == (90.0, 20)
    assert found.settings.users == {"alice": HASH}
    assert WebSettings.model_validate(found.settings.model_dump()) == found.settings
    names = {Path(path).name for path in found.sources.files}
    assert names == {"whole.yaml", "server.crt", "server.key", "authority.crt"}


def test_a_file_of_comments_asks_for_nothing_and_an_empty_one_is_not_written_yet(tmp_path: Path) -> None:
    for text in ("# nothing\n", "{}\n", "---\n{}\n"):
        assert loaded(tmp_path / "web.yaml", text).settings == WebSettings()
    (line,) = mistakes(tmp_path / "web.yaml", "\n")
    assert line.strip().startswith("is empty; write {} where neither TLS nor passwords are wanted")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "tls_server_confg: {}\n",
            ['1:1: unknown key "tls_server_confg"; did you mean "tls_server_config" or "http_server_config"?'],
        ),
        (
            "tls_server_config: {cert_file: server.crt, keyfile: server.key}\n",
            [
                '1:44: tls_server_config: unknown key "keyfile"; did you mean "key_file"?',
            ],
        ),
        (
            "tls_server_config: {cert_file: server.crt}\n",
            ["1:1: neither key_file nor key is there; name the file of the private key"],
        ),
        (
            "tls_server_config: {cert_file: authority.crt, key_file: server.key}\n",
            ["1:1: certificate and key: key values mismatch (the key belongs to another certificate)"],
        ),
        (
            "tls_server_config: {cert_file: server.key, key_file: server.key}\n",
            ["1:1: certificate and key: not in PEM (PEM, as openssl writes it: first the server's certificate, then"
             " those between it and the authority)"],
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: open.key}\n",
            ["1:44: DIR/open.key: a private key that everybody can read (mode 0644) is none; chmod o-r DIR/open.key,"
             " and renew it"],
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: no.key}\n",
            ["1:44: DIR/no.key: cannot be read: no such file or directory; relative paths start at the file that names"
             " them"],
        ),
        (
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  min_version: TLS10\n"
            "  client_auth_type: RequireAnyClientCert\n  curve_preferences: [X25519]\n",
            [
                '4:16: tls_server_config: min_version "TLS10" is broken and not spoken here; write TLS12 or TLS13',
                '5:21: tls_server_config: client_auth_type "RequireAnyClientCert" takes certificates that nobody has'
                " verified, which Python's ssl cannot; write RequireAndVerifyClientCert",
                '6:23: tls_server_config: curve_preferences: curve_preferences[0] "X25519" cannot be demanded by'
                " Python's ssl; it is taken by itself where no curve is named",
            ],
        ),
        (
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_allowed_sans: [a]\n"
            "  client_ca_file: authority.crt\n  curve_preferences: [CurveP256, CurveP384]\n",
            [
                "4:3: client_allowed_sans needs client_auth_type RequireAndVerifyClientCert; else no name may be shown",
                "5:3: client_ca_file has no effect without client_auth_type; write RequireAndVerifyClientCert there",
                "6:3: curve_preferences has more than one, and Python's ssl takes one; write one, or leave it out",
            ],
        ),
        (
            "rate_limit: {interval: 1}\nhttp_server_config: {headers: {X-Frame-Option: deny, X-Frame-Options: none}}\n",
            [
                "1:24: rate_limit: interval 1 is no duration; write one like 1s, 100ms or 1m30s, or 0 for no limit",
                '2:32: header "X-Frame-Option" cannot be set; did you mean "X-Frame-Options"?',
                '2:54: X-Frame-Options "none" is not known; write deny or sameorigin',
            ],
        ),
        (
            "rate_limit: {interval: 1s}\n",
            ["1:1: burst is 0, so that nothing would be answered; write a burst of 1 or more"],
        ),
    ],
)  # fmt: skip
def test_every_mistake_is_told_with_its_place(pki: certificates.Pki, text: str, expected: list[str]) -> None:
    (pki.directory / "open.key").write_text((pki.directory / "server.key").read_text())
    (pki.directory / "open.key").chmod(0o644)
    found = mistakes(pki.directory / "web.yaml", text)
    assert found == [line.replace("DIR", str(pki.directory)) for line in expected]


@pytest.mark.parametrize("value", ["hunter2", "12345", "$2y$10$short", "{a: hunter2}"])
def test_what_stands_for_a_password_is_never_shown(tmp_path: Path, value: str) -> None:
    (line,) = mistakes(tmp_path / "web.yaml", f"basic_auth_users:\n  bob: {value}\n")
    assert line == '2:8: user "bob" has no bcrypt hash ($2y$10$...); make one with `htpasswd -nBC 10 NAME`'


def test_a_hash_that_costs_minutes_is_refused(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path / "web.yaml", f"basic_auth_users:\n  bob: {HASH.replace('$10$', '$24$')}\n")
    assert line == (
        '2:8: user "bob" has a hash of cost 24; make one of 10, at most 16: every wrong password costs as much'
    )


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(
        ConfigErrors, match=r"can be written by its group and everybody \(mode 0666\), who could say who may come in"
    ):
        web_file.load(path, {os.geteuid()})
    path.chmod(0o600)
    with pytest.raises(ConfigErrors, match=rf"belongs to user {os.geteuid()}, .* --config.trust-owner {os.geteuid()}"):
        web_file.load(path, {12345})


def test_hashes_that_everybody_can_read_are_worth_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(f"basic_auth_users: {{bob: {HASH}}}\n")
    path.chmod(0o644)
    (warning,) = web_file.load(path, {os.geteuid()}).warnings
    assert "can be read by everybody (mode 0644)" in warning.text


def test_an_encrypted_key_asks_nobody(pki: certificates.Pki) -> None:
    key = pki.directory / "encrypted.key"
    certificates.openssl("pkcs8", "-topk8", "-in", str(pki.directory / "server.key"), "-out", str(key),
                         "-passout", "pass:secret")  # fmt: skip
    key.chmod(0o600)
    (line,) = mistakes(
        pki.directory / "web.yaml", "tls_server_config: {cert_file: server.crt, key_file: encrypted.key}\n"
    )
    assert line == "1:1: key: it is encrypted (nobody is there to ask: give one without a passphrase)"


def test_it_is_read_in_a_child_and_comes_back_whole(pki: certificates.Pki) -> None:
    path = pki.web_file(users={"alice": "secret"})
    found = read_in_child(read_web_config, WebConfigRead, path, [os.geteuid()])
    assert found.mistakes == ()
    assert found.settings is not None
    assert found.settings == web_file.load(path, {os.geteuid()}).settings
    assert not changed(found.sources)
    path.write_text("nonsense: 1\n")
    assert changed(found.sources)
    wrong = read_in_child(read_web_config, WebConfigRead, path, [os.geteuid()])
    assert (wrong.settings, wrong.mistakes[0][0]) == (None, f"{path}:1:1")


def test_the_example_asks_for_nothing_and_for_all_of_it_without_its_marks(pki: certificates.Pki) -> None:
    text = (daemon.ROOT / "web.example.yaml").read_text()
    assert loaded(pki.directory / "example.yaml", text).settings == WebSettings()
    (pki.directory / "clients.crt").write_text(pki.authority.read_text())
    found = loaded(pki.directory / "example.yaml", re.sub("^#(?! )|^#(?=  )", "", text, flags=re.MULTILINE)).settings
    assert found.tls is not None
    assert found.tls.allowed_sans == ("prometheus.example",)
    assert (list(found.users), found.interval, found.burst, len(found.headers)) == (["prometheus"], 0.1, 50, 2)
    assert bcrypt.checkpw(b"change me", found.users["prometheus"].encode())
