"""Web configurations applied to a running HTTP server."""

from __future__ import annotations

from typing import Any

from exporter import log
from exporter.spec import WebSettings
from exporter.web.connection import Access
from exporter.web.http_server import HttpServer


class AccessControl:
    """Turn TLS, authentication and rate limiting on and off. Without settings it adds nothing to a request."""

    def __init__(self, server: HttpServer) -> None:
        self._service = server.service
        self._unrestricted = server.service.access
        self._protected: Any = None
        self._settings: WebSettings | None = None

    def apply(self, settings: WebSettings | None) -> None:
        """Apply settings (None: no restriction) from the next request and the next connection on. ValueError for
        certificates that make no TLS; then nothing changes."""
        if settings == self._settings:
            return
        if settings is None:
            self._service.access = self._unrestricted
        else:
            # OpenSSL and bcrypt take 6 MB, which only these settings need. They are imported before this process gives
            # up its rights: after that it may be unable to read its own modules.
            from exporter.web.auth import Protected
            from exporter.web.tls import TlsSecurity

            security = None
            if settings.tls is not None:
                before = self._settings.tls if self._settings is not None else None
                security = self._service.access.security if before == settings.tls else TlsSecurity(settings.tls)
            self._protected = (self._protected or Protected(self._unrestricted.handler)).use(settings)
            self._service.access = Access(self._protected, security)
        self._settings = settings
        _log(settings or WebSettings())


def _log(settings: WebSettings) -> None:
    """Log who is let in from now on, and no secret."""
    tls = settings.tls
    log.get().info(
        "web configuration in use",
        tls=tls is not None,
        client_certificates=bool(tls and tls.client_ca),
        allowed_sans=len(tls.allowed_sans) if tls else 0,
        users=len(settings.users),
        rate_limit=bool(settings.interval),
    )
