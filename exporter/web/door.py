"""An HTTP server behind what a web configuration file asks for, which may change while it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.web.serving import Server
from exporter.web.settings import Settings, from_json


class Door:
    """Without settings a request takes the way that it takes without this class."""

    def __init__(self, server: Server) -> None:
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
            self._server.wsgi_app, self._server.tls = self._open, None
        else:
            security = None
            if settings.tls is not None:
                from exporter.web.tls import Security  # OpenSSL is 5 MB, for those who want it

                before = self._settings.tls if self._settings is not None else None
                security = self._server.tls if before == settings.tls else Security(settings.tls)
            self._guard(settings)
            self._server.wsgi_app, self._server.tls = self._guarded, security
        self._settings = settings

    def _guard(self, settings: Settings) -> None:
        from exporter.web.guarding import Guarded

        if self._guarded is None:
            self._guarded = Guarded(self._open)
        self._guarded.use(settings)
