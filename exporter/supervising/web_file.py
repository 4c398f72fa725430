"""The web configuration file and its certificates, looked at every second, and read again when they have changed and
stayed so until the next look.

By the supervisor, because a key may be readable by root alone: the server is told what is in it. A file with mistakes
changes nothing, is told in the log once, and by a metric until it is right.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from exporter import log, messages, web_configuration
from exporter.config.sources import Sources
from exporter.supervising import children
from exporter.supervising.children import Child

LOOKS = 1.0  # seconds between two looks
READ_DEADLINE = 60.0  # seconds; 0.4 s of CPU are usual
ANSWER_TIMEOUT = 10.0  # seconds that the reader may take over its one message


@dataclass(frozen=True, slots=True)
class Source:
    """answer  runs in a forked child: web_configuration.answer of the file
    first   what was read of it at start, without mistakes
    """

    answer: Callable[[], dict[str, Any]]
    first: web_configuration.Read


class WebFile:
    """A part of the supervisor's loop. `tell` is given a message for the server."""

    def __init__(
        self, source: Source, selector: selectors.BaseSelector, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self._source = source
        self._selector = selector
        self._tell = tell
        self._settings = source.first.settings
        self._files = source.first.sources
        self._successful = True
        self._timestamp = time.time()
        self._seen: object = None  # of the files, when they were as `_files` says
        self._written: object = None  # at the last look
        self._look = time.monotonic()
        self._reader: Child | None = None
        self._deadline = 0.0

    def news(self) -> dict[str, Any]:
        """What the server is told: the last settings without mistakes, and whether the files still say that."""
        return {"settings": self._settings, "successful": self._successful, "timestamp": self._timestamp}

    def due(self) -> list[float]:
        """When `work` has to be called at the latest, by the monotonic clock."""
        return [self._look if self._reader is None else self._deadline]

    def work(self) -> None:
        now = time.monotonic()
        if self._reader is not None:
            if now >= self._deadline:
                self._reader.kill()
                self._reap(self._reader)
                self._failed([("web configuration", f"no answer within {READ_DEADLINE:.0f} s (host overloaded?)")])
        elif now >= self._look:
            self._look = now + LOOKS
            seen = [_identity(path) for path in self._files.files]
            if seen == self._seen:
                return
            if seen != self._written:
                self._written = seen  # somebody may be writing still: half a file could ask for no password
            elif self._files.changed():
                self._begin()
            else:
                self._seen = seen

    def end(self) -> None:
        if self._reader is not None:
            self._reader.kill()
            self._reap(self._reader)

    def _begin(self) -> None:
        try:
            self._reader = child = children.ask(self._source.answer)
        except OSError as error:  # the next look tries again
            log.get().error("web configuration cannot be read", why=str(error))
            return
        self._deadline = time.monotonic() + READ_DEADLINE
        self._selector.register(child.sock, selectors.EVENT_READ, lambda: self._on_answer(child))

    def _on_answer(self, child: Child) -> bool:
        if child is not self._reader:
            return False  # it took too long in this round of the loop
        child.sock.settimeout(ANSWER_TIMEOUT)
        try:
            message = messages.receive(child.sock)
        except (messages.ProtocolError, OSError):
            message = None
        if message is None:
            child.kill()
        status = self._reap(child)
        if message is None:
            self._failed([("web configuration", f"the process that reads it ended with status {status} and no word")])
            self._seen = [_identity(path) for path in self._files.files]  # the same files would do the same to it
            return False
        found = web_configuration.understood(message[0])
        # Files of before too: what was wrong may be set right in one of them.
        self._files = Sources({**self._files.files, **found.sources.files})
        if found.settings is None:
            self._failed(found.mistakes)
            return False
        self._files = found.sources
        for place, text in found.warnings:
            log.get().warning("web configuration", place=place, why=text)
        log.get().info("web configuration read again", changed=found.settings != self._settings)
        self._settings, self._successful, self._timestamp = found.settings, True, time.time()
        self._tell({"web": self.news()})
        return False

    def _failed(self, mistakes: Any) -> None:
        for place, text in mistakes:
            log.get().error("web configuration is wrong: the last one that was right stays", place=place, why=text)
        self._successful = False
        self._tell({"web": self.news()})

    def _reap(self, child: Child) -> int:
        self._selector.unregister(child.sock)
        self._reader = None
        return child.reap()


def _identity(path: str) -> object:
    """What changes when a file is written, exchanged, or may be read by others."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
