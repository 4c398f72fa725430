"""The HTTP interface: /metrics, the landing page, /-/healthy and /-/ready, as a WSGI application (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs

from exporter import log
from exporter.program import Program
from exporter.web import negotiation, status
from exporter.web.page import Page, Piece, size

CONTENT_TYPE_TEXT = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TIMEOUT = "HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS"
QUERY_LIMIT = 64  # parameters in a query string

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class PageSource(Protocol):
    """Where the answers come from."""

    def programs(self) -> Sequence[Program]:
        """Every program of the configuration, in its order."""

    def ready(self) -> bool:
        """Whether every program was tried."""

    def exposition(self, names: frozenset[str] | None, *, openmetrics: bool, seconds: float | None = None) -> Page:
        """The text of these programs' metrics (None: of all) and of the exporter's own, for a client that waits so many
        seconds."""


class BadRequestError(Exception):
    """The client asked for something that does not exist; the text says what would work."""


class Application:
    """Answers one request at a time per thread; has no state of its own."""

    def __init__(self, source: PageSource, metrics_path: str = "/metrics") -> None:
        self._source = source
        self._routes: dict[str, Callable[[dict[str, Any]], tuple[str, str, Page]]] = {
            "/": self._status,
            "/-/healthy": lambda _: _text("200 OK", "bpf-exporter is healthy."),
            "/-/ready": self._ready,
            metrics_path: self._metrics,
        }
        self._metrics_path = metrics_path

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[Piece]:
        code, content_type, page = self._answer(environ)
        headers = [("Content-Type", content_type), ("X-Content-Type-Options", "nosniff")]
        if code.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        body = page.plain
        # Not worth it in one packet.
        if size(body) > 1400 and negotiation.gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = page.gzipped()
            headers.append(("Content-Encoding", "gzip"))
        headers += [("Vary", "Accept, Accept-Encoding"), ("Content-Length", str(size(body)))]
        start_response(code, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    def _answer(self, environ: dict[str, Any]) -> tuple[str, str, Page]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text("405 Method Not Allowed", "only GET and HEAD are answered here")
        route = self._routes.get(environ.get("PATH_INFO", "/"))
        if route is None:
            return _text("404 Not Found", f"nothing here; metrics are at {self._metrics_path}")
        try:
            return route(environ)
        except BadRequestError as error:
            return _text("400 Bad Request", str(error))
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the server
            log.get().error("request failed", path=environ.get("PATH_INFO"), error=f"{type(error).__name__}: {error}")
            return _text("500 Internal Server Error", "see the exporter's log")

    def _metrics(self, environ: dict[str, Any]) -> tuple[str, str, Page]:
        wanted = negotiation.openmetrics(environ.get("HTTP_ACCEPT", ""))
        chosen = self._selection(environ.get("QUERY_STRING", ""))
        seconds = negotiation.seconds(environ.get(TIMEOUT, ""))
        kind = CONTENT_TYPE_OPENMETRICS if wanted else CONTENT_TYPE_TEXT
        return "200 OK", kind, self._source.exposition(chosen, openmetrics=wanted, seconds=seconds)

    def _selection(self, query: str) -> frozenset[str] | None:
        """The programs that collect[] or exclude[] leave, as node_exporter has them; None for all."""
        if not query:
            return None
        try:
            parameters = parse_qs(query, max_num_fields=QUERY_LIMIT)
        except ValueError as error:
            raise BadRequestError(f"more than {QUERY_LIMIT} parameters") from error
        collect, exclude = parameters.get("collect[]", []), parameters.get("exclude[]", [])
        if not collect and not exclude:
            return None
        if collect and exclude:
            raise BadRequestError("collect[] and exclude[] cannot be combined: use one of them")
        known = [p.name for p in self._source.programs()]
        unknown = sorted(set(collect + exclude) - set(known))
        if unknown:
            raise BadRequestError(f"no program {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
        return frozenset(collect) if collect else frozenset(known) - frozenset(exclude)

    def _ready(self, _: dict[str, Any]) -> tuple[str, str, Page]:
        if self._source.ready():
            return _text("200 OK", "bpf-exporter is ready.")
        return _text("503 Service Unavailable", "programs are still being loaded")

    def _status(self, _: dict[str, Any]) -> tuple[str, str, Page]:
        page = status.render(self._source.programs(), self._metrics_path)
        return "200 OK", "text/html; charset=utf-8", Page([page])


def _text(code: str, text: str) -> tuple[str, str, Page]:
    return code, "text/plain; charset=utf-8", Page([text.encode() + b"\n"])
