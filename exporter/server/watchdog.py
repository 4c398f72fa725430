"""Proof of life for the service manager: WATCHDOG=1 after a map was really read (systemd.service(5), WatchdogSec=).

A scrape that reads maps is proof enough; a server without scrapes reads a map itself. If a thread never releases the
lock of collections, or the kernel hangs in a read, the server stops sending WATCHDOG=1 and the service manager ends it.
"""

from __future__ import annotations

import threading
import time
from typing import NoReturn, Protocol

from exporter import log
from exporter.systemd import notify, watchdog_interval


class Checked(Protocol):
    def read_one_map(self) -> str:
        """Read a map, unless one was just read. Return the error, "" for none and where there is no map."""


def start(programs: Checked) -> None:
    """In a thread of its own, if the service manager wants it."""
    seconds = watchdog_interval()
    if seconds is not None:
        threading.Thread(target=_run, args=(programs, seconds), name="watchdog", daemon=True).start()


def _run(programs: Checked, seconds: float) -> NoReturn:
    while True:
        if error := programs.read_one_map():
            log.get().error("no map can be read: the service manager will end this process", error=error)
        else:
            notify("WATCHDOG=1")
        time.sleep(seconds)
