"""Log lines: for people on a terminal, logfmt or JSON for machines, with levels for the journal; one line an event.

Values come out of configuration, kernel and cgroup names. What is secret (keys, passwords, headers of requests) is
never given to the logger, and a line break in a value is written as \\n, so that no name can forge a line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from exporter.repeats import Repeats

Format = Literal["auto", "console", "logfmt", "json", "journal"]
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
