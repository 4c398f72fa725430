"""The service manager's store of descriptors: what lets programs outlive their supervisor (sd_pid_notify_with_fds(3)).

Every descriptor of a running program is stored under a name of its own: maps, programs, attachments, the memory of
totals, and last a document that describes them. If the supervisor is killed before it stores the document, the next
supervisor ignores the other descriptors and loads the program again. systemd passes the stored descriptors to the next
start of the unit (LISTEN_FDS), also after kill -9, and closes them when the unit is stopped.

`adopt` takes programs out of the store at the start: it compares the configuration and the metrics, adoption.py the
bytecode, and it logs why a program is not adopted.

Each descriptor is sent with FDPOLL=0. Without it systemd polls the descriptor, gets EPOLLERR from a BPF map, and drops
the map. Names are short, because all of them are one environment variable of at most 128 KiB (MAX_ARG_STRLEN,
execve(2)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from exporter import log
from exporter.binding.bind import BindingError, bind_all
from exporter.ipc import messages, protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import Loaded, Stored, VersionError
from exporter.kernel import memfd
from exporter.program import State
from exporter.supervisor.adoption import Compare
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.reload_plan import same_in_kernel, same_series
from exporter.systemd import barrier, remove_fd, store_fd

_DOCUMENT = re.compile(r"(?P<token>[0-9]+)\.d(?P<generation>[0-9]+)")
_TOKEN = re.compile(r"(?P<token>[0-9]+)\.")


@dataclass(slots=True)
class _Stored:
    """A program as it is in the store. `names`: by descriptor; `document`: the name of the last one."""

    token: int
    names: dict[int, str] = field(default_factory=dict)
    document: str = ""
    generation: int = 0
    made_of: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """A program that an earlier supervisor stored. `fds`: by name."""

    token: int
    message: Stored
    name: str
    generation: int
    fds: Mapping[str, int]


class FdStore:
    """Stores the programs that run, and gives a new supervisor those that the last one stored. A part of its loop.

    passed    (name, descriptor) of each that the service manager passed; owned from now on
    programs  of the supervisor, at any time
    """

    def __init__(
        self, passed: Sequence[tuple[str, int]], programs: Sequence[ManagedProgram], label_length: int
    ) -> None:
        self._passed = dict(passed)
        self._programs = programs
        self.label_length = label_length
        self._stored: dict[ManagedProgram, _Stored] = {}
        tokens = [int(match["token"]) for name in self._passed if (match := _TOKEN.match(name))]
        self._next_token = max(tokens, default=0) + 1
        self._failed = False

    # Adoption

    def adopt(self, compare: Compare) -> None:
        """Make those programs run that are in the store and would be loaded the same; close all else, and log why.

        One whose metrics changed has no memory of totals then.
        """
        wanted = {managed.spec.name: managed for managed in self._programs if managed.program.state is State.LOADING}
        candidates: list[tuple[_Found, ManagedProgram]] = []
        for found in self._found():
            managed = wanted.get(found.message.spec.name)
            if managed is None:
                _log_not_adopted(found, "the configuration does not have it, or disables it")
            elif not same_in_kernel(found.message.spec, managed.spec):
                _log_not_adopted(found, "its C text, attach points, defines or maps are configured otherwise")
            else:
                try:
                    bind_all(managed.spec.metrics, found.message.loaded.program.maps, managed.spec.maps)
                except BindingError as error:
                    _log_not_adopted(found, "; ".join(error.messages))
                else:
                    candidates.append((found, managed))
        pairs = [(managed.spec, found.message.loaded.program) for found, managed in candidates]
        for (found, managed), difference in zip(candidates, compare(pairs) if pairs else [], strict=True):
            if difference:
                _log_not_adopted(found, difference)
            elif managed not in self._stored:
                self._adopt(found, managed)
        adopted = {name for stored in self._stored.values() for name in (*stored.names.values(), stored.document)}
        unwanted = [name for name in self._passed if name not in adopted]
        if unwanted:
            self._remove(unwanted)
            barrier()
        for name in unwanted:
            os.close(self._passed[name])
        self._passed = {}

    def _found(self) -> list[_Found]:
        """Return what is whole in the store, by its newest document; nothing where one is of another version."""
        found: dict[int, _Found] = {}
        try:
            for name, fd in self._passed.items():
                if match := _DOCUMENT.fullmatch(name):
                    token, generation = int(match["token"]), int(match["generation"])
                    try:
                        message = protocol.decode(messages.read(fd), Stored)
                    except VersionError:
                        raise
                    except ProtocolError as error:
                        log.get().warning("stored program not understood: it is detached", name=name, error=str(error))
                        continue
                    names = [*message.names, *([message.totals] if message.totals else [])]
                    newer = token not in found or found[token].generation < generation
                    if newer and all(name in self._passed for name in names):
                        fds = {name: self._passed[name] for name in names}
                        found[token] = _Found(token, message, name, generation, fds)
        except (OSError, VersionError) as error:
            log.get().warning("what systemd kept is of another version: all programs are loaded anew", error=str(error))
            return []
        return list(found.values())

    def _adopt(self, found: _Found, managed: ManagedProgram) -> None:
        message = found.message
        managed.program = message.loaded.program
        managed.fds = message.loaded.with_numbers([found.fds[name] for name in message.names])
        managed.since = message.since
        names = {found.fds[name]: name for name in message.names}
        same_totals = message.label_length == self.label_length and same_series(message.spec, managed.spec)
        if message.totals and same_totals:
            managed.totals = found.fds[message.totals]
            names[managed.totals] = message.totals
        stored = _Stored(found.token, names, found.name, found.generation)
        stored.made_of = (*_made_of(managed)[:4], message.spec, managed.since)  # with another managed it is stored anew
        self._stored[managed] = stored
        os.close(self._passed[found.name])
        log.get().info("program adopted", program=managed.spec.name, attachments=len(managed.fds.links))

    # Storing

    def due(self) -> list[float]:
        return []

    def work(self) -> None:
        """Store what began to run or changed, and remove what no longer runs."""
        self.remove([managed for managed in self._stored if managed not in self._programs or not _runs(managed)])
        for managed in self._programs:
            if _runs(managed):
                self._store_program(managed)

    def remove(self, programs: Sequence[ManagedProgram]) -> None:
        """Have the manager close what it keeps of these, and wait for it.

        This comes before they are detached: the last to close an attachment waits for the kernel (docs/attach.md), and
        PID 1 must not.
        """
        stored = [self._stored.pop(managed) for managed in programs if managed in self._stored]
        for each in stored:
            self._remove_stored(each)
        if stored:
            barrier()

    def _store_program(self, managed: ManagedProgram) -> None:
        made_of = _made_of(managed)
        stored = self._stored.get(managed)
        if stored is not None and _same(stored.made_of, made_of):
            return
        if stored is not None and stored.made_of[0] is not managed.fds:  # loaded anew, and numbers may be the same
            self._remove_stored(stored)
            stored = None
        if stored is None:
            stored = self._stored[managed] = _Stored(self._next_token)
            self._next_token += 1
        loaded, numbers = Loaded.of(managed.program, managed.fds)
        wanted = [*numbers, *([] if managed.totals is None else [managed.totals])]
        stale = [stored.names.pop(fd) for fd in _stale(stored, made_of, wanted)]
        stored.generation += 1
        before, stored.document = stored.document, f"{stored.token}.d{stored.generation}"
        for fd in wanted:
            if fd not in stored.names:
                stored.names[fd] = f"{stored.token}.{stored.generation}.{len(stored.names)}"
                self._store(stored.names[fd], fd)
        message = Stored(
            managed.spec,
            loaded,
            names=tuple(stored.names[fd] for fd in numbers),
            totals=None if managed.totals is None else stored.names[managed.totals],
            label_length=self.label_length,
            since=managed.since,
        )
        fd = memfd.of_content("program", protocol.encode(message))
        self._store(stored.document, fd)
        os.close(fd)
        self._remove([*([before] if before else []), *stale])  # last: the one before is whole until this one is
        stored.made_of = made_of

    def _remove_stored(self, stored: _Stored) -> None:
        self._remove([stored.document, *stored.names.values()])

    def _store(self, name: str, fd: int) -> None:
        if not store_fd(name, fd) and not self._failed:
            self._failed = True
            log.get().warning("systemd does not keep descriptors: programs will be loaded anew after a restart")

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            remove_fd(name)


def _log_not_adopted(found: _Found, error: str) -> None:
    log.get().info("program not adopted: it is detached", program=found.message.spec.name, error=error)


def _runs(managed: ManagedProgram) -> bool:
    return managed.program.state is State.RUNNING and bool(managed.fds.maps)


def _made_of(managed: ManagedProgram) -> tuple[Any, ...]:
    """Return what the document of a program depends on: when one of these changes, it is stored anew."""
    # A new memory of totals often gets the number of the one that was closed for it.
    memory = None if managed.totals is None else (managed.totals, os.fstat(managed.totals).st_ino)
    return managed.fds, tuple(managed.fds.links), memory, managed.program, managed.spec, managed.since


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    fds, links, totals, *rest = one
    fds_, links_, totals_, *rest_ = other
    return (
        fds is fds_ and (links, totals) == (links_, totals_) and all(a is b for a, b in zip(rest, rest_, strict=True))
    )


def _stale(stored: _Stored, made_of: tuple[Any, ...], wanted: Sequence[int]) -> set[int]:
    """Return stored descriptors that are closed by now, also where their numbers are of other files already: a link at
    another index than before is another link."""
    stale = set(stored.names) - set(wanted)
    if stored.made_of:
        (_, links, memory, *_), (_, before, memory_before, *_) = made_of, stored.made_of
        others = {link for link, old in zip_longest(links, before) if link != old}
        if memory is not None and memory != memory_before:
            others.add(memory[0])
        stale |= others & set(stored.names)
    return stale
