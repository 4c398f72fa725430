"""What programs take of the CPU, as the supervisor tells the server: numbers only, never a program's descriptor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunTime:
    """Of one program, whatever it was loaded as. None: nobody knows.

    share    CPU seconds per second over all CPUs in the last window, traps of uprobes added; None if it does not run
    budget   what it may take of that; None for as much as it likes
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
class RunTimes:
    """Of all programs. `trap`: seconds that an event of a uprobe costs beside its program; None where there is none."""

    programs: Mapping[str, RunTime] = field(default_factory=dict)
    trap: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"programs": {name: asdict(each) for name, each in self.programs.items()}, "trap": self.trap}


def from_json(document: Mapping[str, Any]) -> RunTimes:
    """What `to_json` gave. AttributeError, LookupError, TypeError or ValueError for anything else."""
    programs = {name: RunTime(**each) for name, each in document["programs"].items()}
    return RunTimes(programs, document["trap"])
