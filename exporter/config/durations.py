"""Durations as people write them -> seconds: 30s, 5m, 100ms; in a web configuration also Go's 1m30s and 1.5h."""

from __future__ import annotations

import re

DURATION = r"([0-9]{1,9})(ms|s|m|h|d)"
GO_DURATION = r"([0-9]{1,9}(\.[0-9]{1,9})?(h|ms|m|s|us|µs|ns))+"  # time.ParseDuration of Go, without a sign
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def seconds(text: str, pattern: str = DURATION) -> float | None:
    """Return the seconds of a duration that `pattern` matches as a whole, None for any other text."""
    if not re.fullmatch(pattern, text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)([^0-9.]+)", text))
