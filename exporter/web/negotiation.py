"""What a client accepts: the format of /metrics and whether it may be compressed."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder

CONTENT_TYPE_TEXT = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def openmetrics(accept: str) -> bool:
    """Whether an Accept header asks for OpenMetrics 1.0 or newer, as prometheus_client understands it."""
    return choose_encoder(accept)[1].startswith("application/openmetrics-text")


def gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    for item in accept_encoding.split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            name, _, weight = parameters.replace(" ", "").lower().partition("=")
            try:
                return name != "q" or float(weight) > 0
            except ValueError:
                return False
    return False
