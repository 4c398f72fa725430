"""What a client accepts: the format of /metrics, whether it may be compressed (RFC 9110, 12.5), and for how long it
waits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

LONGEST = 86400.0  # seconds that a scraper waits; one that waits longer gets all, however long it takes
_KNOWN = 16  # headers: a scraper sends the same ones again and again


@lru_cache(_KNOWN)
def openmetrics(accept: str) -> bool:
    """Whether an Accept header prefers OpenMetrics 1.x to the text format; nobody gets it without asking by name."""
    wanted = plain = 0.0
    for kind, parameters in _items(accept):
        weight = _weight(parameters)
        if kind == "application/openmetrics-text":
            if parameters.get("version", "1").partition(".")[0] == "1":
                wanted = max(wanted, weight)
        elif kind == "text/plain":
            plain = max(plain, weight)
    return 0 < wanted >= plain


@lru_cache(_KNOWN)
def gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    weights = {coding: _weight(parameters) for coding, parameters in _items(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def seconds(timeout: str) -> float | None:
    """How long a scraper waits by its own word (X-Prometheus-Scrape-Timeout-Seconds); None if it does not say."""
    if not timeout:
        return None
    try:
        waits = float(timeout)
    except ValueError:
        return None
    return waits if 0 < waits <= LONGEST else None


def _items(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The elements of a list and their parameters, in lower case and without blanks."""
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        yield name, {key.strip(): value.strip() for key, _, value in pairs}


def _weight(parameters: dict[str, str]) -> float:
    """`q`, 1 without one; 0 if it is no number, as if the element were not there."""
    try:
        weight = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
