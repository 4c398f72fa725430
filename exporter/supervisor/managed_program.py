"""One program as the supervisor holds it: its configuration, what became of it, and what keeps it alive."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from exporter import log
from exporter.ipc.protocol import ProgramState
from exporter.program import Descriptors, Program, Reason, State, pair
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

    def for_server(self) -> tuple[ProgramState, list[int]]:
        """Return the message to the server and its descriptors: maps and the memory of totals, never a program or link.

        Maps are read-only but those whose entries the server itself has to delete.
        """
        names = list(self.fds.readonly)
        writable = {name for name, options in self.spec.maps.items() if options.ttl}
        writable.update(*(pair(name) for name, options in self.spec.maps.items() if options.drain))
        given = {**self.fds.readonly, **{name: fd for name, fd in self.fds.maps.items() if name in writable}}
        totals = [] if self.totals is None else [self.totals]
        message = ProgramState(self.program, self.spec, tuple(names), bool(totals))
        return message, [*(given[name] for name in names), *totals]

    def detach(self) -> None:
        """Let go of everything in the kernel, and of the totals."""
        began, links = time.monotonic(), len(self.fds.links)
        self.fds.close()
        self.forget_totals()
        seconds = round(time.monotonic() - began, 1)
        if seconds >= SLOW_CLOSE:
            why = "the kernel detaches them one after another: see docs/attach.md"
            log.get().warning("detaching took long", program=self.spec.name, links=links, seconds=seconds, error=why)

    def forget_totals(self) -> None:
        if self.totals is not None:
            os.close(self.totals)
            self.totals = None


def failed(spec: ProgramSpec, reason: Reason, text: str) -> Program:
    """Return the program of a spec that failed."""
    return Program(spec.name, State.FAILED, reason=reason, text=text)
