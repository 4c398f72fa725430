"""Programs with a `lifetime:`, which end by themselves when it is over."""

from __future__ import annotations

import time

from exporter.program import Reason, State
from exporter.supervisor.managed_program import ManagedProgram, Programs


class Lifetimes:
    """A part of the supervisor's loop: stops each program whose time is over."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def due(self) -> list[float]:
        return [managed.since + managed.spec.lifetime for managed in self._programs if _ends(managed)]

    def work(self) -> None:
        now = time.monotonic()
        for managed in [each for each in self._programs if _ends(each) and now >= each.since + each.spec.lifetime]:
            lifetime = f"its lifetime of {managed.spec.lifetime:.0f} s is over (change its entry and reload)"
            self._programs.stop(managed, State.ENDED, Reason.NONE, f"{managed.spec.name}: {lifetime}")


def _ends(managed: ManagedProgram) -> bool:
    return managed.program.state is State.RUNNING and managed.spec.lifetime > 0
