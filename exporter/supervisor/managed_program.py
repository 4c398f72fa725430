"""One program of the supervisor: its spec, what became of it, and the descriptors that keep it in the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from exporter import log
from exporter.ipc.protocol import ProgramState
from exporter.program import Descriptors, Program, Reason, State, pair
from exporter.spec import ProgramSpec

SLOW_CLOSE = 1.0  # seconds; the kernel detaches some kinds one after another


@dataclass(slots=True, eq=False)
class ManagedProgram:
    """A program of the configuration, in the supervisor.

    totals  the descriptor of the memory in which its totals outlive a server
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
        """Close everything that it has in the kernel, and its totals."""
        began, links = time.monotonic(), len(self.fds.links)
        self.fds.close()
        self.forget_totals()
        seconds = round(time.monotonic() - began, 1)
        if seconds >= SLOW_CLOSE:
            error = "the kernel detaches them one after another: see docs/attach.md"
            log.get().warning("detaching took long", program=self.spec.name, links=links, seconds=seconds, error=error)

    def forget_totals(self) -> None:
        if self.totals is not None:
            os.close(self.totals)
            self.totals = None


class Programs(Protocol):
    """The supervisor's programs as the parts of its loop see them: ManagedPrograms."""

    def __iter__(self) -> Iterator[ManagedProgram]: ...

    def is_loading(self, managed: ManagedProgram) -> bool: ...

    def load_again(self, managed: ManagedProgram) -> None: ...

    def stop(self, managed: ManagedProgram, state: State, reason: Reason, text: str) -> None: ...

    def send(self, managed: ManagedProgram) -> None: ...


def failed(spec: ProgramSpec, reason: Reason, text: str) -> Program:
    """Return the program of a spec that failed."""
    return Program(spec.name, State.FAILED, reason=reason, text=text)
