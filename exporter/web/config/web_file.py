"""A web configuration file (prometheus/exporter-toolkit) and its certificates -> settings, or every mistake with its
position.

Needs pydantic and PyYAML, and the rights to read private keys: a child of the supervisor runs it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from exporter.config import ConfigErrors
from exporter.config.config_files import FileError, FileReader, check_owner
from exporter.config.findings import Finding, Findings, Mark, in_order
from exporter.config.nodes import MappingNode, Node, ScalarNode, at, compose, key_at
from exporter.config.validate import validate
from exporter.kernel.near import did_you_mean
from exporter.spec import Sources, TlsSettings, WebSettings
from exporter.web import tls
from exporter.web.config import web_document

_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
MOST_COST = 16  # rounds 2^16 take 4 s of CPU, for every wrong password too


@dataclass(frozen=True, slots=True)
class LoadedWebConfig:
    settings: WebSettings
    warnings: tuple[Finding, ...]
    sources: Sources


def load(path: Path, owners: Collection[int]) -> LoadedWebConfig:
    """Read the file, which must belong to one of `owners` (user ids). ConfigErrors has every mistake, sorted by
    position; no content of the files raises another exception."""
    reading = _Reading(path, owners)
    settings = reading.settings()
    report = reading.report
    if settings is None or report.errors:
        raise ConfigErrors(in_order(report.errors), reading.reader.sources)
    return LoadedWebConfig(settings, tuple(in_order(report.warnings)), reading.reader.sources)


class _Reading:
    """One reading of the file, with the findings so far."""

    def __init__(self, path: Path, owners: Collection[int]) -> None:
        self.path = path
        self.owners = owners
        self.reader = FileReader()
        self.report = Findings()
        self.root: Node = MappingNode(Mark(str(path)), ())

    def settings(self) -> WebSettings | None:
        """Return the settings; None after a mistake that makes the rest meaningless."""
        try:
            text = self.reader.text(self.path)
            mode = self._check_owner()
        except FileError as error:
            self.report.error(Mark(str(self.path), error.line, error.column), str(error))
            return None
        if not text.strip():
            self.report.error(Mark(str(self.path)), "is empty; write {} where neither TLS nor passwords are wanted")
            return None
        composed = compose(text, str(self.path))
        for surprise in composed.surprises:
            self.report.error(surprise.mark, surprise.text)
        if composed.root is None:
            return None if composed.surprises else WebSettings()  # a file of comments has no settings
        self.root = composed.root
        valid = validate(web_document.WebDocument, self.root, self.report)
        if valid is None:
            return None
        file = valid.document
        users = self._users()
        secure = self._tls(file.tls_server_config)
        headers = self._headers(file.http_server_config.headers)
        limit = file.rate_limit
        if limit.interval and not limit.burst:
            self._error(("rate_limit",), "burst is 0, so that nothing would be answered; write a burst of 1 or more")
        if mode & stat.S_IROTH:
            if file.tls_server_config.key:
                self._error(("tls_server_config", "key"), _world_readable(self.path, mode))
            elif users:
                text = f"can be read by everybody (mode {mode:04o}), who may then guess; chmod o-r {self.path}"
                self.report.warn(key_at(self.root, ("basic_auth_users",)), f"hashes of passwords: the file {text}")
        return WebSettings(secure, headers, limit.interval, limit.burst, users)

    def _error(self, path: tuple[str, ...], text: str) -> None:
        self.report.error(key_at(self.root, path), text)

    def _check_owner(self) -> int:
        """Return the file's mode. FileError if other users can write the file: it grants access and names files that
        root reads."""
        status = os.stat(self.path)
        check_owner(self.path, status, self.owners, "who could say who may come in")
        return stat.S_IMODE(status.st_mode)

    def _tls(self, wanted: web_document.TlsDocument) -> TlsSettings | None:
        where = ("tls_server_config",)
        asked = wanted.model_fields_set - {"client_auth_type"} or wanted.client_auth_type != "NoClientCert"
        if not asked:
            return None
        before = len(self.report.errors)
        cert = self._pem(wanted.cert, wanted.cert_file, "cert")
        key = self._pem(wanted.key, wanted.key_file, "key")
        authorities = self._pem(wanted.client_ca, wanted.client_ca_file, "client_ca")
        if cert is None:
            self._error(where, "neither cert_file nor cert is there; name the file of the certificate")
        if key is None:
            self._error(where, "neither key_file nor key is there; name the file of the private key")
        verifies = wanted.client_auth_type != "NoClientCert"
        requires = wanted.client_auth_type == "RequireAndVerifyClientCert"
        if verifies and authorities is None:
            text = f"client_auth_type {wanted.client_auth_type} needs client_ca_file: whose certificates are accepted"
            self._error((*where, "client_auth_type"), text)
        if authorities is not None and not verifies:
            text = "client_ca_file has no effect without client_auth_type; write RequireAndVerifyClientCert there"
            self._error((*where, "client_ca" if wanted.client_ca else "client_ca_file"), text)
        if wanted.client_allowed_sans is not None and not requires:
            text = "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert; else no name may be shown"
            self._error((*where, "client_allowed_sans"), text)
        if wanted.client_allowed_sans == []:
            self._error(
                (*where, "client_allowed_sans"), "client_allowed_sans is empty; name one, or leave it out for all"
            )
        if wanted.min_version > wanted.max_version:
            self._error((*where, "min_version"), "min_version is above max_version; write TLS12 and TLS13")
        if len(wanted.curve_preferences) > 1:
            text = "curve_preferences has more than one, and Python's ssl takes one; write one, or leave it out"
            self._error((*where, "curve_preferences"), text)
        ciphers = [web_document.CIPHERS[name] for name in wanted.cipher_suites if name in web_document.CIPHERS]
        if wanted.cipher_suites and not ciphers and wanted.min_version == "TLS12":
            text = "cipher_suites has none for TLS 1.2; name one, or write min_version: TLS13"
            self._error((*where, "cipher_suites"), text)
        if cert is None or key is None or len(self.report.errors) > before:
            return None
        made = TlsSettings(
            cert=cert,
            key=key,
            client_ca=authorities or "",
            requires_client=requires,
            allowed_sans=tuple(map(tls.address, wanted.client_allowed_sans or ())),
            min_version=wanted.min_version,
            max_version=wanted.max_version,
            ciphers=":".join(ciphers),
            server_chooses=wanted.prefer_server_cipher_suites,
            curve="".join(web_document.CURVES[name] for name in wanted.curve_preferences),
        )
        try:
            tls.context(made)
        except tls.TlsError as error:
            self._error(where, str(error))
            return None
        return made

    def _pem(self, text: str | None, name: str | None, key: str) -> str | None:
        """Return the text of a certificate or key, inline or from its file; "" where it cannot be read, None for
        neither."""
        where = ("tls_server_config", f"{key}_file")
        if text and name:
            self._error(where, f"{key}_file and {key} are both there; write one of them")
        if text:
            return text
        if not name:
            return None
        path = self.path.parent / name
        try:
            found = self.reader.text(path)
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except (FileError, OSError) as error:
            self._error(where, f"{path}: {error}")
            return ""
        if key == "key" and mode & stat.S_IROTH:
            self._error(where, _world_readable(path, mode))
        return found

    def _headers(self, wanted: dict[str, str]) -> tuple[tuple[str, str], ...]:
        where = ("http_server_config", "headers")
        for name, value in wanted.items():
            allowed = web_document.HEADERS.get(name)
            if allowed is None:
                hint = did_you_mean(name, web_document.HEADERS, otherwise="those that can be set are")
                self._error((*where, name), f'header "{name}" cannot be set; {hint}')
            elif value and allowed and value not in allowed:
                self._error((*where, name), f'{name} "{value}" is not known; write {" or ".join(allowed)}')
            elif not value.isascii() or (value and not value.isprintable()):
                self._error((*where, name), f"{name} has characters that no header may have; write one line of ASCII")
        # Blanks around a value are no part of it (RFC 9110, 5.5), and h11 refuses to send them.
        return tuple((name, stripped) for name, value in wanted.items() if (stripped := value.strip()))

    def _users(self) -> dict[str, str]:
        """Return hashes by user name. Messages never show a hash: it may be a password."""
        node = at(self.root, ("basic_auth_users",)) if isinstance(self.root, MappingNode) else None
        written = self.root.get("basic_auth_users") if isinstance(self.root, MappingNode) else None
        if node is None or written is None or (isinstance(written, ScalarNode) and written.value is None):
            return {}
        if not isinstance(written, MappingNode):
            self.report.error(written.mark, "basic_auth_users is no mapping; write NAME: HASH, one a line")
            return {}
        users = {}
        for key, value in written.items:
            name, text = key.text, value.text if isinstance(value, ScalarNode) else ""
            match = _BCRYPT.fullmatch(text)
            hint = "make one with `htpasswd -nBC 10 NAME`"
            if ":" in name or not name:
                self.report.error(key.mark, f'user "{name}" cannot be asked for; a name has no colon, and is not empty')
            elif match is None:
                self.report.error(value.mark, f'user "{name}" has no bcrypt hash ($2y$10$...); {hint}')
            elif not 4 <= int(match[1]) <= MOST_COST:
                cost = int(match[1])
                text = f'user "{name}" has a hash of cost {cost}; make one of 10, at most {MOST_COST}'
                self.report.error(value.mark, f"{text}: every wrong password costs as much")
            else:
                users[name] = text
        return users


def _world_readable(path: Path, mode: int) -> str:
    return f"{path}: a private key that everybody can read (mode {mode:04o}) is none; chmod o-r {path}, and renew it"
