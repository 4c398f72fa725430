"""Certificates for tests, made by openssl: an authority, a server's, clients', and a web configuration file of them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import yaml

COST = 5  # bcrypt's: a test waits for it


@dataclass(frozen=True)
class Pki:
    """Files NAME.crt and NAME.key in one directory; `server` is for localhost."""

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "authority.crt"

    def issue(self, name: str, san: str, days: int = 2) -> tuple[Path, Path]:
        """Certificate and key for these names (openssl x509v3_config(5): "DNS:a,IP:127.0.0.1"), signed by the
        authority."""
        key, request, certificate = (self.directory / f"{name}.{end}" for end in ("key", "csr", "crt"))
        openssl("req", "-new", *_NEW_KEY, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}",
                 "-addext", f"subjectAltName={san}")  # fmt: skip
        openssl("x509", "-req", "-in", str(request), "-CA", str(self.authority), "-days", str(days),
                 "-CAkey", str(self.directory / "authority.key"), "-CAcreateserial", "-copy_extensions", "copy",
                 "-out", str(certificate))  # fmt: skip
        key.chmod(0o600)
        return certificate, key

    def web_file(self, users: Mapping[str, str] | None = None, **tls: object) -> Path:
        """web.yaml with the server's certificate and these passwords. `tls`: more keys of tls_server_config."""
        path = self.directory / "web.yaml"
        document: dict[str, object] = {
            "tls_server_config": {"cert_file": "server.crt", "key_file": "server.key", **tls}
        }
        if users:
            document["basic_auth_users"] = {name: hashed(password) for name, password in users.items()}
        replace(path, yaml.safe_dump(document))
        return path


def replace(path: Path, text: str) -> None:
    """At once, for root alone: nobody reads a half of it."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    new.rename(path)


def hashed(password: str, cost: int = COST) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def make(directory: Path) -> Pki:
    pki = Pki(directory)
    key = directory / "authority.key"
    openssl("req", "-x509", *_NEW_KEY, "-keyout", str(key), "-out", str(pki.authority), "-days", "2",
             "-subj", "/CN=authority of a test")  # fmt: skip
    pki.issue("server", "DNS:localhost,IP:127.0.0.1")
    return pki


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
