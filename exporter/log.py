"""Log lines: for people on a terminal, logfmt or JSON for machines; one line an event."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog

Format = Literal["auto", "console", "logfmt", "json"]
LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info", style: Format = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog for the process. "auto" is console on a terminal and logfmt elsewhere."""
    stream = stream or sys.stderr
    if style == "auto":
        style = "console" if stream.isatty() else "logfmt"
    renderers: dict[str, structlog.typing.Processor] = {
        "console": structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0),
        "logfmt": structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        "json": structlog.processors.JSONRenderer(),
    }
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if style == "console" else "iso", utc=style != "console"),
            renderers[style],
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


def get() -> structlog.typing.FilteringBoundLogger:
    """The process's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
