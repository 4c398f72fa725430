"""The web configuration file and its certificates: checked every second, and read again when they have changed and no
longer change.

The supervisor reads them, because a key may be readable by root alone, and sends the settings to the server. A file
with mistakes changes nothing; the log reports it once, and a metric until it is right.
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

CHECK_INTERVAL = 1.0  # seconds between two checks
RETRY = 60.0  # seconds after which files are read again whose reader failed


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
        self._unchanged: object = None  # identities of the files when they were as in `_files`
        self._last: object = None  # identities at the last check
        self._check_due = time.monotonic()
        self._retry = math.inf  # when unchanged files are read all the same
        self._reader = ConfigReader(selector, source.read, WebConfigRead, self._on_read)

    def state(self) -> WebState:
        """Return the message to the server."""
        return WebState(self._settings, self._successful, self._timestamp)

    def due(self) -> list[float]:
        """Return when `work` has to be called at the latest, by the monotonic clock."""
        return self._reader.due() or [self._check_due]

    def work(self) -> None:
        now = time.monotonic()
        self._reader.work()
        if not self._reader.is_reading and now >= self._check_due:
            self._check_due = now + CHECK_INTERVAL
            if now >= self._retry:
                self._unchanged, self._retry = None, math.inf
            now_there = [_identity(path) for path in self._files.files]
            if now_there == self._unchanged:
                return
            if now_there != self._last:
                self._last = now_there  # it may be half written, and half a file could ask for no password
            elif sources.changed(self._files):
                self._begin()
            else:
                self._unchanged = now_there

    def end(self) -> None:
        self._reader.end()

    def _begin(self) -> None:
        try:
            self._reader.begin()
        except OSError as error:  # the next check tries again
            log.get().error("web configuration cannot be read", error=str(error))

    def _on_read(self, found: WebConfigRead | None, error: str) -> None:
        if found is None:
            self._failed([("web configuration", error)])
            self._unchanged = self._last  # the next reader would fail too, unless memory or time was short
            self._retry = time.monotonic() + RETRY
            return
        # The earlier files too: what was wrong may be corrected in one of them.
        self._files = Sources({**self._files.files, **found.sources.files})
        if found.settings is None:
            self._failed(found.mistakes)
            return
        self._files = found.sources
        for place, text in found.warnings:
            log.get().warning("web configuration", place=place, warning=text)
        log.get().info("web configuration read again", changed=found.settings != self._settings)
        self._settings, self._successful, self._timestamp = found.settings, True, time.time()
        self._send(self.state())

    def _failed(self, mistakes: Iterable[tuple[str, str]]) -> None:
        for place, text in mistakes:
            log.get().error("web configuration is wrong: the earlier one stays in use", place=place, error=text)
        self._successful = False
        self._send(self.state())


def _identity(path: str) -> object:
    """Return what changes when a file is written, replaced, or its mode changes."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
