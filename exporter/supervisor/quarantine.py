"""Never twice the same crash: programs are written down before they are attached, and kept away when the host died.

A program that was attached for less than five minutes, or about to be, when the host went down without an end of the
exporter is suspected, and all are where several were: which of them it was nobody can tell. A suspect is `quarantined`
at the next start, until its text changes or a person clears it. Where only the exporter died (same boot) nobody is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from exporter import log
from exporter.program import Reason, State
from exporter.spec import ProgramSpec
from exporter.supervisor.crash_record import Content, CrashRecord, DamagedError, Suspect, seen_from, written
from exporter.supervisor.managed_program import ManagedProgram

SETTLED = 300.0  # seconds of life after which a crash is no longer held against a program
LOOK = 5.0  # seconds between two looks at what a person has cleared


@dataclass(frozen=True, slots=True)
class CrashGuard:
    """record  the file that outlives a crash
    boot    which boot this is; "" where that cannot be known
    key     what the kernel would run of a program: the same text has the same key
    """

    record: CrashRecord
    boot: str
    key: Callable[[ProgramSpec], str]


@dataclass(slots=True)
class _Young:
    key: str
    suspect: Suspect
    attached: float | None = None  # monotonic, when it was first seen attached


class Quarantine:
    """A part of the supervisor's loop, and the gate that programs pass before they are loaded.

    entries   of the supervisor
    loading   whether an entry is about to be loaded
    again     loads an entry that a person has cleared
    """

    def __init__(
        self,
        guard: CrashGuard,
        *,
        entries: Sequence[ManagedProgram],
        loading: Callable[[ManagedProgram], bool],
        again: Callable[[ManagedProgram], None],
    ) -> None:
        self._record = guard.record
        self._boot = guard.boot
        self._key = guard.key
        self._entries = entries
        self._loading = loading
        self._again = again
        self._young: dict[ManagedProgram, _Young] = {}
        self._settled: set[ManagedProgram] = set()
        self._look = 0.0
        self._known = Content(boot=guard.boot)
        self._broken = ""
        if not guard.boot:
            self._warn(OSError("/proc does not say which boot this is"))
        self._read()
        self._before = self._known.young  # of the process before this one, in this boot
        self._unwritten = bool(self._before)  # some of them may be old by now, or gone

    @property
    def armed(self) -> bool:
        """Whether a crash of the host will be remembered, as far as the last write could tell."""
        return not self._broken

    def admit(self, entries: Sequence[ManagedProgram]) -> list[ManagedProgram]:
        """Those that may be loaded, on disk by now; the others are quarantined."""
        self._read()
        admitted, now, since = [], time.monotonic(), time.time()
        for entry in entries:
            key = self._key(entry.spec)
            suspect = self._known.quarantined.get(key)
            if suspect:
                text = _text(entry.spec.name, suspect)
                entry.program = replace(entry.program, state=State.QUARANTINED, reason=Reason.CRASH, text=text)
                self._look = now + LOOK
                continue
            admitted.append(entry)
            if entry not in self._young:
                self._young[entry] = _Young(key, Suspect(entry.spec.name, since, now))
        self._write()
        return admitted

    def due(self) -> list[float]:
        times = [young.attached + SETTLED for young in self._young.values() if young.attached is not None]
        return [*times, self._look] if any(_is_quarantined(entry) for entry in self._entries) else times

    def work(self) -> None:
        now, before = time.monotonic(), list(self._young)
        self._settled.intersection_update(self._entries)
        for entry in [e for e in self._entries if e.fds.links and e not in self._young and e not in self._settled]:
            self._adopt(entry)
        for entry, young in list(self._young.items()):
            if not entry.fds.links and not self._loading(entry):
                del self._young[entry]
            elif young.attached is None and entry.fds.links:
                young.attached = now
            elif young.attached is not None and now - young.attached >= SETTLED:
                del self._young[entry]
                self._settled.add(entry)
        if self._unwritten or before != list(self._young):
            self._unwritten = False
            self._write()
        if now >= self._look and any(_is_quarantined(entry) for entry in self._entries):
            self._look = now + LOOK
            self._release()

    def end(self) -> None:
        """Everything was detached, or is handed on, and the host lives."""
        if self._young:
            self._change(lambda content: replace(content, ended=True))

    def _adopt(self, entry: ManagedProgram) -> None:
        """Another process attached it, in this boot: it is as old as that one said."""
        suspect = self._before.get(key := self._key(entry.spec))
        if suspect is None or time.monotonic() - suspect.began >= SETTLED:
            self._settled.add(entry)
        else:
            self._young[entry] = _Young(key, suspect, attached=suspect.began)

    def _release(self) -> None:
        """Load what is not in the record any more."""
        self._read()
        for entry in [e for e in self._entries if _is_quarantined(e)]:
            if self._key(entry.spec) not in self._known.quarantined:
                log.get().info("no longer quarantined", program=entry.spec.name)
                self._again(entry)

    def _read(self) -> None:
        """What the file says in this boot; where it cannot be read, what it said before."""
        try:
            content = self._record.read()
            self._known = seen_from(content, self._boot) if self._boot else content
        except DamagedError as error:
            log.get().warning("crash record starts anew", file=str(self._record.path), why=str(error))
        except OSError as error:
            self._warn(error)

    def _write(self) -> None:
        young = {each.key: each.suspect for each in self._young.values()}
        self._change(lambda content: replace(seen_from(content, self._boot), ended=False, young=young))

    def _change(self, how: Callable[[Content], Content]) -> None:
        if not self._boot:
            return
        try:
            self._known = self._record.change(how, self._known)
        except OSError as error:
            self._known = how(self._known)
            self._warn(error)
        else:
            self._broken = ""

    def _warn(self, error: OSError) -> None:
        """Once for each cause: the programs run without it."""
        why = error.strerror or str(error)
        if why != self._broken:
            hint = "a program that crashes this host will be loaded again after it (--state.dir)"
            log.get().warning(f"crash record not kept: {hint}", file=str(self._record.path), why=why)
        self._broken = why


def _is_quarantined(entry: ManagedProgram) -> bool:
    return entry.program.state is State.QUARANTINED


def _text(name: str, suspect: Suspect) -> str:
    return (
        f"{name}: attach: this host died within five minutes of {written(suspect.since)}, when it was attached (read "
        f"the kernel's last words, then change its text or clear it: bpf-exporter quarantine --clear {suspect.program})"
    )
