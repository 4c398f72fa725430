"""The CPU time of programs: numbers that the supervisor measures and the server shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.spec import CountsModel


@dataclass(frozen=True, slots=True)
class RunTime(CountsModel):
    """The CPU time of one program of the configuration, whatever was loaded for it. None: not measured.

    share    CPU seconds per second over all CPUs in the last window, traps of uprobes added; None if it does not run
    budget   CPU seconds per second that the program may take; None for no limit
    exceeded how often it was detached because it took more
    missed   runs that the kernel passed over
    seconds  that all of its runs took; only where every run is counted
    runs     how many those were
    """

    share: float | None = None
    budget: float | None = None
    exceeded: int = 0
    missed: int = 0
    seconds: float | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class RunTimes(CountsModel):
    """The run times of all programs, by name.

    trap  seconds that an event of a uprobe costs beside its program; None where there is none
    """

    programs: Mapping[str, RunTime] = field(default_factory=dict)
    trap: float | None = None
