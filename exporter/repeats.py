"""Log lines that say the same again and again: a few of them a minute, and how many were left out."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

WINDOW = 60.0  # seconds
LINES = 5  # of one kind in a window
KINDS = 1000  # that are remembered; the one that has been silent for longest is forgotten first

_DIGITS = re.compile(r"\d+")
_NAMES = frozenset({"program", "variant", "target", "map", "file", "url"})  # numbers in them are part of a name


class Repeats:
    """A structlog processor. Lines are of one kind if they differ in numbers alone that are no names: a time, a pid.

    The last line of a kind that a window has room for says `more="left out for 60 s"`, the first of a later window
    says in `left_out` how many there were. Raises DropEvent for those between.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()  # when the window began, lines

    def __call__(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        said = (f"{key}={value if key in _NAMES else _DIGITS.sub('0', str(value))}" for key, value in event.items())
        kind = (level, *said)
        now = self._clock()
        began, lines = self._kinds.pop(kind, (now, 0))
        left_out = 0
        if now - began >= WINDOW:
            began, lines, left_out = now, 0, max(0, lines - LINES)
        self._kinds[kind] = (began, lines + 1)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        if lines >= LINES:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        if lines == LINES - 1:
            event["more"] = f"left out for {WINDOW:.0f} s"
        return event
