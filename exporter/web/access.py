"""An HTTP server behind what a web configuration file asks for, which may change while it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter import log
from exporter.web.config.settings import Settings, from_json
from exporter.web.http_server import HttpServer


class AccessControl:
    """Without settings a request takes the way that it takes without this class."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._open: Any = server.wsgi_app
        self._guarded: Any = None
        self._settings: Settings | None = None

    def take(self, document: Mapping[str, Any] | None) -> None:
        """Settings as JSON values (settings.py), from the next request and the next connection on; None: whoever
        connects is answered. KeyError, TypeError or ValueError for what are none, and then nothing has changed."""
        settings = None if document is None else from_json(document)
        if settings == self._settings:
            return
        if settings is None:
            self._server.way = self._open, None
        else:
            # OpenSSL and bcrypt are 6 MB, for those who want them. Now and not when a file first asks for TLS: by then
            # this process may no longer read its own modules.
            from exporter.web.auth import Protected
            from exporter.web.tls import TlsSecurity

            security = None
            if settings.tls is not None:
                before = self._settings.tls if self._settings is not None else None
                security = self._server.way[1] if before == settings.tls else TlsSecurity(settings.tls)
            self._guarded = (self._guarded or Protected(self._open)).use(settings)
            self._server.way = self._guarded, security
        self._settings = settings
        _say(settings)


def _say(settings: Settings | None) -> None:
    """One line of who may come in from now on; nothing of what they have to know."""
    settings = settings or Settings()
    tls = settings.tls
    log.get().info(
        "web configuration in use",
        tls=tls is not None,
        client_certificates=bool(tls and tls.client_ca),
        allowed_sans=len(tls.allowed_sans) if tls else 0,
        users=len(settings.users),
        rate_limit=bool(settings.interval),
    )
