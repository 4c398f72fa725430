"""A proxy between Prometheus and the exporter that decides the format and remembers what came.

Prometheus 2.42 always asks for OpenMetrics first; to have its parser read the plain text format as well, one scrape job
goes through a relay that asks for nothing in particular.
"""

from __future__ import annotations

import contextlib
import http.server
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Relay:
    """Proxies by job: "openmetrics" passes Accept on, "text" leaves it out."""

    servers: dict[str, http.server.ThreadingHTTPServer] = field(default_factory=dict)
    content_types: dict[str, str] = field(default_factory=dict)

    def url(self, job: str) -> str:
        return f"http://127.0.0.1:{self.servers[job].server_address[1]}"

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Relay]:
        relay = cls()
        for job in ("openmetrics", "text"):
            relay.servers[job] = http.server.ThreadingHTTPServer(("127.0.0.1", 0), relay._handler(job))
            threading.Thread(target=relay.servers[job].serve_forever, daemon=True).start()
        try:
            yield relay
        finally:
            for server in relay.servers.values():
                server.shutdown()
                server.server_close()

    def _handler(self, job: str) -> type[http.server.BaseHTTPRequestHandler]:
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {"Accept": self.headers["Accept"]} if job == "openmetrics" else {}
                # Asked as a proxy, the path is the whole URL (RFC 9112, section 3.2.2).
                with urllib.request.urlopen(urllib.request.Request(self.path, headers=headers), timeout=10) as answer:
                    body, kind = answer.read(), answer.headers["Content-Type"]
                relay.content_types[job] = kind
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
