"""One program as the supervisor holds it: its configuration, what became of it, and what keeps it alive."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from exporter import log
from exporter.program import Descriptors, Program, State, pair, to_json
from exporter.spec import ProgramSpec

SLOW_CLOSE = 1.0  # seconds; the kernel detaches some kinds one after another


@dataclass(slots=True, eq=False)
class ManagedProgram:
    """A program of the configuration.

    totals  the memory that its totals outlive a server in
    since   when it was loaded, by the monotonic clock
    """

    spec: ProgramSpec
    program: Program
    fds: Descriptors = field(default_factory=Descriptors)
    totals: int | None = None
    since: float = 0.0

    @classmethod
    def of(cls, spec: ProgramSpec) -> ManagedProgram:
        return cls(spec, Program(spec.name, State.LOADING if spec.enabled else State.DISABLED))

    def for_server(self) -> tuple[dict[str, Any], list[int]]:
        """What the server is told: the program's document, its configuration, its maps and the memory of its totals;
        never a program or a link. Maps are read-only but those whose entries the server itself has to delete."""
        names = list(self.fds.readonly)
        writable = {name for name, options in self.spec.maps.items() if options.ttl}
        writable.update(*(pair(name) for name, options in self.spec.maps.items() if options.drain))
        given = {**self.fds.readonly, **{name: fd for name, fd in self.fds.maps.items() if name in writable}}
        memory = [] if self.totals is None else [self.totals]
        document = {
            **to_json(self.program),
            "spec": self.spec.model_dump(mode="json"),
            "maps": names,
            "totals": len(memory),
        }
        return document, [*(given[name] for name in names), *memory]

    def detach(self) -> None:
        """Let go of everything in the kernel, and of the totals."""
        began, links = time.monotonic(), len(self.fds.links)
        self.fds.close()
        self.forget_totals()
        seconds = round(time.monotonic() - began, 1)
        if seconds >= SLOW_CLOSE:
            why = "the kernel detaches them one after another: see docs/attach.md"
            log.get().warning("detaching took long", program=self.spec.name, links=links, seconds=seconds, why=why)

    def forget_totals(self) -> None:
        if self.totals is not None:
            os.close(self.totals)
            self.totals = None
