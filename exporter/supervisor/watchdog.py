"""Proof of life of the supervisor for the service manager: its loop goes round (systemd.service(5), WatchdogSec=)."""

from __future__ import annotations

import time

from exporter.systemd import notify, watchdog_interval


class Watchdog:
    """A part of the supervisor's loop."""

    def __init__(self) -> None:
        self._interval = watchdog_interval()
        self._due = time.monotonic()

    def due(self) -> list[float]:
        return [] if self._interval is None else [self._due]

    def work(self) -> None:
        if self._interval is not None and time.monotonic() >= self._due:
            notify("WATCHDOG=1")
            self._due = time.monotonic() + self._interval
