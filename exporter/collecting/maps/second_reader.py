"""A thread that reads one part of a map while whoever asked it to reads another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import NoReturn

from exporter import log

# The row behind the last one, and the place of the cursor of where the map goes on, None at its end. None for a part
# that could not be read.
Part = tuple[int, int | None] | None


class SecondReader:
    """An executor would do, and take so long to begin and to end that nothing is won below 50,000 entries."""

    def __init__(self) -> None:
        self._work: Callable[[], Part] = lambda: None
        self._result: Part = None
        self._free, self._begun, self._done = threading.Lock(), threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._done.acquire()
        threading.Thread(target=self._run, name="read", daemon=True).start()

    def begin(self, work: Callable[[], Part]) -> bool:
        """False where it is busy; else `result` is to be called."""
        if not self._free.acquire(blocking=False):
            return False
        self._work = work
        self._begun.release()
        return True

    def result(self) -> Part:
        """When the work is done; None where it failed."""
        self._done.acquire()
        result, self._work = self._result, lambda: None
        self._free.release()
        return result

    def _run(self) -> NoReturn:
        while True:
            self._begun.acquire()
            try:
                self._result = self._work()
            except Exception as error:  # noqa: BLE001 - whoever waits must not wait for ever
                log.get().error("reading failed", error=f"{type(error).__name__}: {error}")
                self._result = None
            self._done.release()


@cache
def second_reader() -> SecondReader:
    """One is enough: there is one collection at a time."""
    return SecondReader()
