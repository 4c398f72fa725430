"""The routes: /metrics, the landing page, /-/healthy and /-/ready. A request goes in, a response comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qs

from exporter import log
from exporter.program import Program
from exporter.web import negotiation, status
from exporter.web.page import Page, Piece, size

CONTENT_TYPE_TEXT = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TIMEOUT = "x-prometheus-scrape-timeout-seconds"
METHODS = ("GET", "HEAD")
QUERY_LIMIT = 64  # parameters in a query string
ONE_PACKET = 1400  # bytes; compressing less than this saves no packet


@dataclass(frozen=True, slots=True)
class Request:
    """method   as sent
    path     percent-decoded; "" if the target is not a path, which only another method than GET and HEAD may have
    query    as sent, without "?"
    headers  by name in lower case; a repeated header has its values joined by ", "
    address  of the client; "" on a Unix socket
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    def header(self, name: str) -> str:
        """Return the value of a header, "" if the client did not send it."""
        return self.headers.get(name, "")


@dataclass(frozen=True, slots=True)
class Response:
    """The connection adds Content-Length, Date and Server, and leaves the body out for HEAD."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Sequence[Piece]


Handler = Callable[[Request], Response]


class PageSource(Protocol):
    """The programs and pages that the application serves."""

    def programs(self) -> Sequence[Program]:
        """Return every program of the configuration, in its order."""

    def ready(self) -> bool:
        """Return True once the supervisor has tried every program."""

    def exposition(self, names: frozenset[str] | None, *, openmetrics: bool, seconds: float | None = None) -> Page:
        """Return the metrics of these programs (None: of all) and the self metrics, for a client that waits this
        long."""


class BadRequestError(Exception):
    """The client asked for something that does not exist; the text says what would work."""


class Application:
    """Answer requests from any number of threads; an application has no state of its own."""

    def __init__(self, source: PageSource, metrics_path: str = "/metrics") -> None:
        self._source = source
        self._routes: dict[str, Handler] = {
            "/": self._status,
            "/-/healthy": lambda _: text_response(200, "bpf-exporter is healthy."),
            "/-/ready": self._ready,
            metrics_path: self._metrics,
        }
        self._metrics_path = metrics_path

    def __call__(self, request: Request) -> Response:
        if request.method not in METHODS:
            return text_response(405, "only GET and HEAD are answered here", ("Allow", "GET, HEAD"))
        route = self._routes.get(request.path)
        if route is None:
            return text_response(404, f"nothing here; metrics are at {self._metrics_path}")
        try:
            return route(request)
        except BadRequestError as error:
            return text_response(400, str(error))
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the server
            log.get().error("request failed", path=request.path, error=f"{type(error).__name__}: {error}")
            return text_response(500, "see the exporter's log")

    def _metrics(self, request: Request) -> Response:
        wanted = negotiation.openmetrics(request.header("accept"))
        chosen = self._selection(request.query)
        seconds = negotiation.seconds(request.header(TIMEOUT))
        page = self._source.exposition(chosen, openmetrics=wanted, seconds=seconds)
        return _negotiated(request, CONTENT_TYPE_OPENMETRICS if wanted else CONTENT_TYPE_TEXT, page)

    def _selection(self, query: str) -> frozenset[str] | None:
        """Return the programs that collect[] or exclude[] leave, as in node_exporter; None for all."""
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

    def _ready(self, _: Request) -> Response:
        if self._source.ready():
            return text_response(200, "bpf-exporter is ready.")
        return text_response(503, "programs are still being loaded")

    def _status(self, request: Request) -> Response:
        page = status.render(self._source.programs(), self._metrics_path)
        return _negotiated(request, "text/html; charset=utf-8", Page([page]))


def _negotiated(request: Request, content_type: str, page: Page) -> Response:
    """Return a page in the content coding that the client accepts."""
    headers = [("Content-Type", content_type), ("X-Content-Type-Options", "nosniff")]
    body = page.plain
    if size(body) > ONE_PACKET and negotiation.gzip(request.header("accept-encoding")):
        body = page.gzipped()
        headers.append(("Content-Encoding", "gzip"))
    return Response(200, (*headers, ("Vary", "Accept, Accept-Encoding")), body)


def text_response(status_code: int, text: str, *headers: tuple[str, str]) -> Response:
    """Return one line of plain text."""
    always = (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff"))
    return Response(status_code, (*always, *headers), [text.encode() + b"\n"])
