"""Notifications to the service manager: ready, reloading, alive (sd_notify(3))."""

from __future__ import annotations

import time

from exporter import log
from exporter.program import State
from exporter.supervisor.programs import ManagedPrograms
from exporter.systemd import notify, watchdog_interval


class ServiceManager:
    """A part of the supervisor's loop."""

    def __init__(self, programs: ManagedPrograms) -> None:
        self._programs = programs
        self._is_ready = False
        self._interval = watchdog_interval()
        self._due = time.monotonic()

    def due(self) -> list[float]:
        return [] if self._interval is None else [self._due]

    def work(self) -> None:
        if self._interval is not None and time.monotonic() >= self._due:
            notify("WATCHDOG=1")
            self._due = time.monotonic() + self._interval
        self._announce()

    def begin_reload(self) -> None:
        if self._is_ready:
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def end_reload(self) -> None:
        if self._is_ready:
            notify("READY=1", self._status())

    def _announce(self) -> None:
        """Send READY=1 once, when every program was tried and the server answers.

        A server that is a unit of its own announces the programs itself.
        """
        loading = any(managed.program.state is State.LOADING for managed in self._programs)
        server = self._programs.server
        if self._is_ready or (loading and not server.announces_itself) or not server.ready:
            return
        self._is_ready = True
        notify("READY=1", self._status())
        log.get().info("ready", running=self._running(), programs=len(self._programs))

    def _status(self) -> str:
        return f"STATUS={self._running()} of {len(self._programs)} programs running"

    def _running(self) -> int:
        return sum(managed.program.state is State.RUNNING for managed in self._programs)
