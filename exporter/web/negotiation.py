"""Request headers -> the format of /metrics, whether to compress it (RFC 9110, 12.5), and how long the client waits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

LONGEST = 86400.0  # seconds; a scraper that waits longer gets all metrics, however long that takes
_REMEMBERED = 16  # headers: a scraper sends the same ones again and again


@lru_cache(_REMEMBERED)
def openmetrics(accept: str) -> bool:
    """Return True if an Accept header names OpenMetrics 1.x and does not prefer the text format."""
    wanted = plain = 0.0
    for kind, parameters in _items(accept):
        weight = _weight(parameters)
        if kind == "application/openmetrics-text":
            if parameters.get("version", "1").partition(".")[0] == "1":
                wanted = max(wanted, weight)
        elif kind == "text/plain":
            plain = max(plain, weight)
    return 0 < wanted >= plain


@lru_cache(_REMEMBERED)
def gzip(accept_encoding: str) -> bool:
    """Return True if an Accept-Encoding header allows gzip."""
    weights = {coding: _weight(parameters) for coding, parameters in _items(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def seconds(timeout: str) -> float | None:
    """Return the scraper's X-Prometheus-Scrape-Timeout-Seconds; None if it sends none that is usable."""
    if not timeout:
        return None
    try:
        waits = float(timeout)
    except ValueError:
        return None
    return waits if 0 < waits <= LONGEST else None


def _items(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the elements of a list and their parameters, in lower case and without blanks."""
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        yield name, {key.strip(): value.strip() for key, _, value in pairs}


def _weight(parameters: dict[str, str]) -> float:
    """Return `q`, 1 if it is missing; 0 if it is not a number, as if the element were missing."""
    try:
        weight = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
