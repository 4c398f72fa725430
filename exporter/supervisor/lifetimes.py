"""Programs with a `lifetime:`, which end by themselves when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from exporter.program import State
from exporter.supervisor.managed_program import ManagedProgram


class Lifetimes:
    """`end` is told of each entry whose time is over, once."""

    def __init__(self, entries: Sequence[ManagedProgram], end: Callable[[ManagedProgram], None]) -> None:
        self._entries = entries
        self._end = end

    def due(self) -> list[float]:
        return [entry.since + entry.spec.lifetime for entry in self._entries if self._is_mortal(entry)]

    def work(self) -> None:
        now = time.monotonic()
        for entry in list(self._entries):
            if self._is_mortal(entry) and now >= entry.since + entry.spec.lifetime:
                self._end(entry)

    @staticmethod
    def _is_mortal(entry: ManagedProgram) -> bool:
        return entry.program.state is State.RUNNING and entry.spec.lifetime > 0
