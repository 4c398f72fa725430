"""The service manager's store of descriptors: what lets programs outlive their supervisor (sd_pid_notify_with_fds(3)).

Every descriptor of a running program is stored under a name of its own: maps, programs, attachments, the memory of
totals, and last a document that says which is what. A store without its document is none, so a supervisor that is
killed in between leaves a program that is loaded anew, never half of one. systemd gives them back to the next start of
the unit (LISTEN_FDS), also after kill -9, and lets go of them when the unit is stopped.

FDPOLL=0 goes with each: systemd polls what it keeps otherwise, a BPF map answers EPOLLERR, and is dropped. Names are
short, because all of them together are one environment variable of at most 128 KiB (MAX_ARG_STRLEN, execve(2)).
"""

from __future__ import annotations

import contextlib
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
from exporter.ipc.protocol import Loaded, Stored
from exporter.kernel import memfd
from exporter.program import State
from exporter.supervisor.adoption import IsUnchanged
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.reload_plan import same_in_kernel, same_series
from exporter.systemd import barrier, remove_fd, store_fd

_DOCUMENT = re.compile(r"(?P<token>[0-9]+)\.d(?P<generation>[0-9]+)")
_TOKEN = re.compile(r"(?P<token>[0-9]+)\.")


@dataclass(slots=True)
class _Stored:
    """A program as it is in the store. `names`: by descriptor; `document`: the name of the last one."""

    token: int
    entry: ManagedProgram
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
    """Stores the running ones among `entries`, and gives a new supervisor what the last one stored.

    passed   name and descriptor of each that the service manager passed; owned from now on
    entries  the programs, as the supervisor has them at any time
    """

    def __init__(self, passed: Sequence[tuple[str, int]], entries: Sequence[ManagedProgram], label_length: int) -> None:
        self._passed = dict(passed)
        self._entries = entries
        self.label_length = label_length
        self._stored: dict[ManagedProgram, _Stored] = {}
        tokens = [int(match["token"]) for name in self._passed if (match := _TOKEN.match(name))]
        self._next_token = max(tokens, default=0) + 1
        self._failed = False

    # Taking over

    def adopt(self, same: IsUnchanged) -> None:
        """Make those of the entries run that are in the store and would be loaded the same; close all else.

        One whose metrics are others than before has no memory of totals then."""
        wanted = {entry.spec.name: entry for entry in self._entries if entry.program.state is State.LOADING}
        candidates: list[tuple[_Found, ManagedProgram]] = []
        for found in self._found():
            entry = wanted.get(found.message.spec.name)
            if entry is not None and same_in_kernel(found.message.spec, entry.spec):
                with contextlib.suppress(BindingError):
                    bind_all(entry.spec.metrics, found.message.loaded.program.maps, entry.spec.maps)
                    candidates.append((found, entry))
        programs = [(entry.spec, found.message.loaded.program) for found, entry in candidates]
        answers = same(programs) if programs else []
        for (found, entry), is_same in zip(candidates, answers, strict=True):
            if is_same and entry not in self._stored:
                self._take_over(found, entry)
        adopted = {name for stored in self._stored.values() for name in (*stored.names.values(), stored.document)}
        unwanted = [name for name in self._passed if name not in adopted]
        if unwanted:
            self._remove(unwanted)
            barrier()
        for name in unwanted:
            os.close(self._passed[name])
        self._passed = {}

    def _found(self) -> list[_Found]:
        """What is whole in the store, the newest document of each first; nothing where one is of another version."""
        found: dict[int, _Found] = {}
        try:
            for name, fd in self._passed.items():
                if match := _DOCUMENT.fullmatch(name):
                    token, generation = int(match["token"]), int(match["generation"])
                    message = protocol.decode(messages.read(fd), Stored)
                    names = [*message.names, *([message.totals] if message.totals else [])]
                    newer = token not in found or found[token].generation < generation
                    if newer and all(name in self._passed for name in names):
                        fds = {name: self._passed[name] for name in names}
                        found[token] = _Found(token, message, name, generation, fds)
        except (OSError, ProtocolError) as error:
            log.get().warning("what systemd kept is of another version: starting clean", error=str(error))
            return []
        return list(found.values())

    def _take_over(self, found: _Found, entry: ManagedProgram) -> None:
        message = found.message
        entry.program = message.loaded.program
        entry.fds = message.loaded.with_numbers([found.fds[name] for name in message.names])
        entry.since = message.since
        names = {found.fds[name]: name for name in message.names}
        goes_on = message.label_length == self.label_length and same_series(message.spec, entry.spec)
        if message.totals and goes_on:
            entry.totals = found.fds[message.totals]
            names[entry.totals] = message.totals
        stored = _Stored(found.token, entry, names, found.name, found.generation)
        stored.made_of = (*_made_of(entry)[:4], message.spec, entry.since)  # with another entry it is stored anew
        self._stored[entry] = stored
        os.close(self._passed[found.name])
        log.get().info("program taken over", program=entry.spec.name, attachments=len(entry.fds.links))

    # supervisor.Part

    def due(self) -> list[float]:
        return []

    def work(self) -> None:
        """Store what has begun to run or has changed, and let go of what runs no more."""
        self.let_go([entry for entry in self._stored if entry not in self._entries or not _runs(entry)])
        for entry in self._entries:
            if _runs(entry):
                self._keep(entry)

    def let_go(self, entries: Sequence[ManagedProgram]) -> None:
        """Have the manager close what it keeps of these, and wait for it: before they are detached, because whoever
        closes an attachment last waits for the kernel (docs/attach.md), and PID 1 has the host to look after."""
        stored = [self._stored.pop(entry) for entry in entries if entry in self._stored]
        for each in stored:
            self._let_go(each)
        if stored:
            barrier()

    def _keep(self, entry: ManagedProgram) -> None:
        made_of = _made_of(entry)
        stored = self._stored.get(entry)
        if stored is not None and _same(stored.made_of, made_of):
            return
        if stored is not None and stored.made_of[0] is not entry.fds:  # loaded anew, and numbers may be the same
            self._let_go(stored)
            stored = None
        if stored is None:
            stored = self._stored[entry] = _Stored(self._next_token, entry)
            self._next_token += 1
        loaded, numbers = Loaded.of(entry.program, entry.fds)
        wanted = [*numbers, *([] if entry.totals is None else [entry.totals])]
        stale = [stored.names.pop(fd) for fd in _stale(stored, made_of, wanted)]
        stored.generation += 1
        before, stored.document = stored.document, f"{stored.token}.d{stored.generation}"
        for fd in wanted:
            if fd not in stored.names:
                stored.names[fd] = f"{stored.token}.{stored.generation}.{len(stored.names)}"
                self._store(stored.names[fd], fd)
        message = Stored(
            entry.spec,
            loaded,
            names=tuple(stored.names[fd] for fd in numbers),
            totals=None if entry.totals is None else stored.names[entry.totals],
            label_length=self.label_length,
            since=entry.since,
        )
        fd = memfd.of_content("program", protocol.encode(message))
        self._store(stored.document, fd)
        os.close(fd)
        self._remove([*([before] if before else []), *stale])  # last: the one before is whole until this one is
        stored.made_of = made_of

    def _let_go(self, stored: _Stored) -> None:
        self._remove([stored.document, *stored.names.values()])

    def _store(self, name: str, fd: int) -> None:
        if not store_fd(name, fd) and not self._failed:
            self._failed = True
            log.get().warning("systemd does not keep descriptors: programs will be loaded anew after a restart")

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            remove_fd(name)


def _runs(entry: ManagedProgram) -> bool:
    return entry.program.state is State.RUNNING and bool(entry.fds.maps)


def _made_of(entry: ManagedProgram) -> tuple[Any, ...]:
    """What the document of a program depends on: when one of these is another, it is stored anew."""
    # A new memory of totals often gets the number of the one that was closed for it.
    memory = None if entry.totals is None else (entry.totals, os.fstat(entry.totals).st_ino)
    return entry.fds, tuple(entry.fds.links), memory, entry.program, entry.spec, entry.since


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    fds, links, totals, *rest = one
    fds_, links_, totals_, *rest_ = other
    return (
        fds is fds_ and (links, totals) == (links_, totals_) and all(a is b for a, b in zip(rest, rest_, strict=True))
    )


def _stale(stored: _Stored, made_of: tuple[Any, ...], wanted: Sequence[int]) -> set[int]:
    """Stored descriptors that are closed by now, also where their numbers stand for other files already: a link that is
    not at its place of before is another one."""
    stale = set(stored.names) - set(wanted)
    if stored.made_of:
        (_, links, memory, *_), (_, before, memory_before, *_) = made_of, stored.made_of
        others = {link for link, old in zip_longest(links, before) if link != old}
        if memory is not None and memory != memory_before:
            others.add(memory[0])
        stale |= others & set(stored.names)
    return stale
