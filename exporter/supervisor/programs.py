"""The supervisor's list of programs: loading, replacing, stopping and reporting each of them."""

from __future__ import annotations

import selectors
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from exporter import log
from exporter.binding import totals_layout
from exporter.binding.bind import BindingError
from exporter.ipc.protocol import ProgramList, ToServer
from exporter.kernel import cpus, memfd
from exporter.program import Reason, State
from exporter.spec import Limits
from exporter.supervisor.fd_store import FdStore
from exporter.supervisor.loaders import Loaders, LoadFunction
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.quarantine import Quarantine


class ServerLink(Protocol):
    """The server as the supervisor sees it, a part of its loop: ServerChild or ServerConnection.

    announces_itself  the server is a unit of its own, and announces the programs to the service manager
    """

    announces_itself: bool

    @property
    def ready(self) -> bool:
        """Return whether the service is up, once all programs were tried."""

    def send(self, message: ToServer, fds: Sequence[int] = ()) -> None:
        """Send a message; nothing happens where no server is, because the next one gets all messages."""

    def due(self) -> list[float]: ...

    def work(self) -> None: ...

    def ask_to_end(self) -> None: ...

    def end(self) -> None:
        """Wait a little for a server that was asked to end, and end it."""


class ManagedPrograms:
    """The programs of the configuration, in its order. One that is replaced is loaded before it is in the list.

    store       None where no service manager keeps descriptors
    quarantine  None where nothing is written down before it is attached
    """

    def __init__(
        self,
        listed: list[ManagedProgram],
        limits: Limits,
        load: LoadFunction,
        selector: selectors.BaseSelector,
        server: ServerLink,
        store: FdStore | None,
    ) -> None:
        self._listed = listed
        self.server = server
        self.store = store
        self.quarantine: Quarantine | None = None
        self.loaders = Loaders(load, limits, selector, self._on_loaded, self._admit)

    def __iter__(self) -> Iterator[ManagedProgram]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    @property
    def limits(self) -> Limits:
        return self.loaders.limits

    def set_limits(self, limits: Limits) -> None:
        """Apply these limits to what is loaded from now on, and to new totals."""
        self.loaders.limits = limits
        if self.store is not None:
            self.store.label_length = limits.label_length

    def begin(self) -> None:
        """Load what the store did not have."""
        for managed in self._listed:
            if managed.program.state is State.LOADING:
                self.loaders.add(managed)
            elif managed.program.state is State.RUNNING and managed.totals is None:
                self.renew_totals(managed)  # its metrics are others than those that it was stored with

    def is_loading(self, managed: ManagedProgram) -> bool:
        return self.loaders.has(managed)

    def load_again(self, managed: ManagedProgram) -> None:
        """Load a program that was stopped."""
        managed.program = ManagedProgram.of(managed.spec).program
        self.loaders.add(managed)
        self.send(managed)

    def stop(self, managed: ManagedProgram, state: State, reason: Reason, text: str) -> None:
        """Detach a program, and give it this state and text."""
        self.loaders.drop(managed)
        self._unstore([managed])
        managed.detach()
        managed.program = replace(managed.program, state=state, reason=reason, text=text, maps=(), attachments=())
        self._log(managed)
        self.send(managed)

    def replace(self, programs: Sequence[ManagedProgram], changed: Sequence[ManagedProgram] = ()) -> None:
        """Make these the list. The server applies it together with all that `changed`; then the others are detached."""
        gone = [managed for managed in self._listed if managed not in programs]
        for managed in [each for each in programs if each not in self._listed]:
            self._log(managed)
        self._listed[:] = programs
        self.server.send(ProgramList(self.names(), len(changed)))
        for managed in changed:
            self.send(managed)
        self._unstore(gone)
        for managed in gone:
            self.abandon(managed)

    def abandon(self, managed: ManagedProgram) -> None:
        """Detach a program that is not in the list, and do not load it."""
        self.loaders.drop(managed)
        managed.detach()

    def names(self) -> tuple[str, ...]:
        return tuple(managed.spec.name for managed in self._listed)

    def send(self, managed: ManagedProgram) -> None:
        """Send a program of the list to the server."""
        if self.store is not None:
            self.store.work()  # first: what a scrape has shown must not be lost with this process
        if managed in self._listed:
            self.server.send(*managed.for_server())

    def renew_totals(self, managed: ManagedProgram) -> None:
        """Give a program another memory of its totals, which begin at what its maps have."""
        managed.forget_totals()
        try:
            layout = totals_layout.of_program(managed.program, managed.spec, cpus.possible(), self.limits.label_length)
            managed.totals = memfd.of_size("totals", layout.size)
        except (BindingError, OSError) as error:
            log.get().warning("totals will not outlive a server", program=managed.spec.name, error=str(error))

    def _admit(self, programs: list[ManagedProgram]) -> list[ManagedProgram]:
        """Return the programs that may be loaded; log and send the others."""
        if self.quarantine is None:
            return programs
        admitted = self.quarantine.admit(programs)
        for managed in [each for each in programs if each not in admitted and each in self._listed]:
            self._log(managed)
            self.send(managed)
        return admitted

    def _on_loaded(self, managed: ManagedProgram) -> None:
        if managed.program.state is State.RUNNING:
            managed.since = time.monotonic()
        if managed in self._listed:  # else it waits for a reload to put it there
            if managed.program.state is State.RUNNING:
                self.renew_totals(managed)
            self._log(managed)
            self.send(managed)

    def _unstore(self, programs: Sequence[ManagedProgram]) -> None:
        if self.store is not None:
            self.store.remove(programs)

    @staticmethod
    def _log(managed: ManagedProgram) -> None:
        """Log the state of a program."""
        program = managed.program
        if program.state is State.RUNNING:
            attached = sum(each.attached for each in program.attachments)
            how = "from cache" if program.from_cache else f"compiled in {program.compile_seconds:.2f} s"
            points = f"{attached} of {len(program.attachments)}"
            variant = program.variant or "-"
            log.get().info("program running", program=program.name, variant=variant, attached=points, how=how)
            for each in program.attachments:
                if not each.attached:
                    log.get().warning("optional attach point is absent", program=program.name, error=each.text)
            return
        quiet = program.state in (State.SKIPPED, State.DISABLED, State.ENDED)
        write = log.get().info if quiet else log.get().error
        write(f"program {program.state}", program=program.name, reason=str(program.reason), error=program.text)
