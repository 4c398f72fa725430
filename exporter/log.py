"""The log: one line per event, for a terminal, as logfmt, as JSON, or with levels for the journal (sd-daemon(3)).

Values come from the configuration, the kernel and cgroup names. Callers never log secrets (keys, passwords, headers of
requests), and a line break in a value is written as \\n, so that no name can forge a line. The field of a cause is
`error`.

Only this module imports structlog, without the modules that structlog needs for tracebacks on terminals, for coroutines
and for thread-local loggers: rich, pygments, asyncio, ssl, uuid. They are 130 modules and 8 MB in roles that run for
months. structlog works without rich; asyncio and uuid are imported when structlog uses an attribute of them.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from types import ModuleType
from typing import Any, Literal, TextIO


def _import_structlog() -> None:
    stand_ins: dict[str, ModuleType | None] = {"rich": None}  # None: ImportError
    stand_ins |= {name: _lazy_module(name) for name in ("asyncio", "uuid")}
    for name in sorted(stand_ins.keys() & sys.modules.keys()):
        del stand_ins[name]  # imported already
    sys.modules.update(stand_ins)  # type: ignore[arg-type]
    try:
        importlib.import_module("structlog")
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def _lazy_module(name: str) -> ModuleType:
    """Return a module that imports the real module of its name when an attribute is used."""

    def attribute(attribute_name: str) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute_name)

    stand_in = ModuleType(name)
    stand_in.__getattr__ = attribute  # type: ignore[method-assign]
    return stand_in


_import_structlog()

import structlog  # noqa: E402 (after _import_structlog)

Format = Literal["auto", "console", "logfmt", "json", "journal"]
WINDOW = 60.0  # seconds
LINES = 5  # of one kind in a window
KINDS = 1000  # remembered; the kind without a line for longest is forgotten first

_DIGITS = re.compile(r"\d+")
_NAMES = frozenset({"program", "variant", "target", "map", "file", "url"})  # a number in these is part of a name

LEVELS = ("debug", "info", "warning", "error")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3), in the form of sd-daemon(3)
_logfmt = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
_without_time = structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)


def configure(level: str = "info", style: Format = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog for the process. "auto" is console on a terminal, journal where the stream is connected to the
    journal, and logfmt elsewhere."""
    stream = stream or sys.stderr
    if style == "auto":
        style = "console" if stream.isatty() else "journal" if _is_journal(stream, os.environ) else "logfmt"
    renderers: dict[str, structlog.typing.Processor] = {
        "console": structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0),
        "logfmt": _logfmt,
        "json": structlog.processors.JSONRenderer(),
        "journal": _journal_line,
    }
    structlog.configure(
        processors=[
            RepeatLimit(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if style == "console" else "iso", utc=style != "console"),
            renderers[style],
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return True if $JOURNAL_STREAM has the device and inode of the stream (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _journal_line(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
    """Return a line without time, with the level as a number in front (sd-daemon(3))."""
    event.pop("timestamp")
    line = _without_time(logger, name, {key: value for key, value in event.items() if key != "level"})
    return f"<{_PRIORITIES[event['level']]}>{line}"


def get() -> structlog.typing.FilteringBoundLogger:
    """Return the logger of the process."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


class RepeatLimit:
    """A structlog processor that limits equal lines. Lines are of one kind if they differ only in numbers that are not
    part of a name: a time, a pid.

    The last line of a kind in a window has `more="left out for 60 s"`, and the first in a later window has `left_out`,
    the number of lines between, which raise DropEvent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()  # start of the window, lines

    def __call__(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        fields = (f"{key}={value if key in _NAMES else _DIGITS.sub('0', str(value))}" for key, value in event.items())
        kind = (level, *fields)
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
