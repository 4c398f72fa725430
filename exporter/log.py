"""Log lines: for people on a terminal, logfmt or JSON for machines, with levels for the journal; one line an event.

Values come out of configuration, kernel and cgroup names. What is secret (keys, passwords, headers of requests) is
never given to the logger, and a line break in a value is written as \\n, so that no name can forge a line.

This is the only module that imports structlog, without what structlog needs for tracebacks on terminals and for
coroutines alone: rich, pygments, asyncio, ssl. They are 130 modules and 8 MB in roles that live for months. structlog
does without rich where rich is not installed; asyncio is imported when structlog asks for something in asyncio.
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
    for_now: dict[str, ModuleType | None] = {"rich": None, "asyncio": _on_use("asyncio")}  # None: an ImportError
    for name in sorted(for_now.keys() & sys.modules.keys()):
        del for_now[name]  # somebody has it already
    sys.modules.update(for_now)  # type: ignore[arg-type]
    try:
        importlib.import_module("structlog")
    finally:
        for name, stand_in in for_now.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def _on_use(name: str) -> ModuleType:
    """What stands for a module that is imported when an attribute of it is asked for."""

    def attribute(of: str) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), of)

    stand_in = ModuleType(name)
    stand_in.__getattr__ = attribute  # type: ignore[method-assign]
    return stand_in


_import_structlog()

import structlog  # noqa: E402 (after _import_structlog)

Format = Literal["auto", "console", "logfmt", "json", "journal"]
WINDOW = 60.0  # seconds
LINES = 5  # of one kind in a window
KINDS = 1000  # that are remembered; the one that has been silent for longest is forgotten first

_DIGITS = re.compile(r"\d+")
_NAMES = frozenset({"program", "variant", "target", "map", "file", "url"})  # numbers in them are part of a name

LEVELS = ("debug", "info", "warning", "error")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3), as sd-daemon(3) wants them
_logfmt = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
_without_time = structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)


def configure(level: str = "info", style: Format = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog for the process. "auto" is console on a terminal, journal where the stream is a connection to
    systemd's journal, and logfmt elsewhere."""
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
            Repeats(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if style == "console" else "iso", utc=style != "console"),
            renderers[style],
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the stream is what $JOURNAL_STREAM names by device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _journal_line(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
    """The journal has the time by itself, and takes the level from a number in front (sd-daemon(3))."""
    event.pop("timestamp")
    line = _without_time(logger, name, {key: value for key, value in event.items() if key != "level"})
    return f"<{_PRIORITIES[event['level']]}>{line}"


def get() -> structlog.typing.FilteringBoundLogger:
    """The process's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


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
