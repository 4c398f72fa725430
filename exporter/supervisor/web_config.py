"""The web configuration file and its certificates, looked at every second, and read again when they have changed and
stayed so until the next look.

By the supervisor, because a key may be readable by root alone: the server is told what is in it. A file with mistakes
changes nothing, is told in the log once, and by a metric until it is right.
"""

from __future__ import annotations

import math
import os
import selectors
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from exporter import log
from exporter.config import sources
from exporter.ipc.protocol import WebConfigRead, WebState
from exporter.spec import Sources
from exporter.supervisor.config_reader import ConfigReader

LOOKS = 1.0  # seconds between two looks
TRIES_AGAIN = 60.0  # seconds after which files are read again that nobody could read to their end


@dataclass(frozen=True, slots=True)
class WebConfigSource:
    """Where the web configuration comes from.

    read   reads the files, in a forked child
    first  what was read of them at start, without mistakes
    """

    read: Callable[[], WebConfigRead]
    first: WebConfigRead


class WebConfigWatch:
    """A part of the supervisor's loop. `send` sends a message to the server."""

    def __init__(
        self, source: WebConfigSource, selector: selectors.BaseSelector, send: Callable[[WebState], None]
    ) -> None:
        self._send = send
        self._settings = source.first.settings
        self._files = source.first.sources
        self._successful = True
        self._timestamp = time.time()
        self._seen: object = None  # of the files, when they were as `_files` says
        self._written: object = None  # at the last look
        self._look = time.monotonic()
        self._again = math.inf  # when files that look as they did are read all the same
        self._reader = ConfigReader(selector, source.read, WebConfigRead, self._on_read)

    def state(self) -> WebState:
        """Return the message to the server."""
        return WebState(self._settings, self._successful, self._timestamp)

    def due(self) -> list[float]:
        """When `work` has to be called at the latest, by the monotonic clock."""
        return self._reader.due() or [self._look]

    def work(self) -> None:
        now = time.monotonic()
        self._reader.work()
        if not self._reader.is_reading and now >= self._look:
            self._look = now + LOOKS
            if now >= self._again:
                self._seen, self._again = None, math.inf
            seen = [_identity(path) for path in self._files.files]
            if seen == self._seen:
                return
            if seen != self._written:
                self._written = seen  # somebody may be writing still: half a file could ask for no password
            elif sources.changed(self._files):
                self._begin()
            else:
                self._seen = seen

    def end(self) -> None:
        self._reader.end()

    def _begin(self) -> None:
        try:
            self._reader.begin()
        except OSError as error:  # the next look tries again
            log.get().error("web configuration cannot be read", error=str(error))

    def _on_read(self, found: WebConfigRead | None, error: str) -> None:
        if found is None:
            self._failed([("web configuration", error)])
            self._seen = self._written  # they would do the same to the next one, unless memory or time was short
            self._again = time.monotonic() + TRIES_AGAIN
            return
        # Files of before too: what was wrong may be set right in one of them.
        self._files = Sources({**self._files.files, **found.sources.files})
        if found.settings is None:
            self._failed(found.mistakes)
            return
        self._files = found.sources
        for place, text in found.warnings:
            log.get().warning("web configuration", place=place, error=text)
        log.get().info("web configuration read again", changed=found.settings != self._settings)
        self._settings, self._successful, self._timestamp = found.settings, True, time.time()
        self._send(self.state())

    def _failed(self, mistakes: Iterable[tuple[str, str]]) -> None:
        for place, text in mistakes:
            log.get().error("web configuration is wrong: the last one that was right stays", place=place, error=text)
        self._successful = False
        self._send(self.state())


def _identity(path: str) -> object:
    """What changes when a file is written, exchanged, or may be read by others."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
