"""Programs that crashed the host are not attached again: each is written down before, and quarantined after a crash.

If the host crashes while the exporter runs, every program that was attached less than five minutes before, or was about
to be attached, is a suspect. A suspect is `quarantined` at the next start, until its text changes or a person clears
it. If only the exporter died (same boot), no program is a suspect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from exporter import log
from exporter.program import Reason, State
from exporter.spec import ProgramSpec
from exporter.supervisor.crash_record import Content, CrashRecord, DamagedError, Suspect, seen_from, written
from exporter.supervisor.managed_program import ManagedProgram, Programs

SETTLED = 300.0  # seconds of life after which a program is not suspected of a crash
CHECK_INTERVAL = 5.0  # seconds between two checks of what a person has cleared


@dataclass(frozen=True, slots=True)
class CrashGuard:
    """record  the file that outlives a crash
    boot    the boot (kernel.boot); "" where it is not known
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
    """A part of the supervisor's loop, and the check of programs before they are loaded."""

    def __init__(self, guard: CrashGuard, programs: Programs) -> None:
        self._record = guard.record
        self._boot = guard.boot
        self._key = guard.key
        self._programs = programs
        self._young: dict[ManagedProgram, _Young] = {}
        self._settled: set[ManagedProgram] = set()
        self._check_due = 0.0
        self._known = Content(boot=guard.boot)
        self._logged_error = ""
        if not guard.boot:
            self._warn(OSError("/proc does not say which boot this is"))
        self._read()
        self._before = self._known.young  # of the process before this one, in this boot
        self._unwritten = bool(self._before)  # some of them may be old by now, or gone

    @property
    def armed(self) -> bool:
        """Return whether a crash of the host will be remembered: the last write succeeded."""
        return not self._logged_error

    def admit(self, programs: Sequence[ManagedProgram]) -> list[ManagedProgram]:
        """Write down the programs that may be loaded, and return them; the others are quarantined."""
        self._read()
        admitted, now, since = [], time.monotonic(), time.time()
        for managed in programs:
            key = self._key(managed.spec)
            suspect = self._known.quarantined.get(key)
            if suspect:
                text = _text(managed.spec.name, suspect)
                managed.program = replace(managed.program, state=State.QUARANTINED, reason=Reason.CRASH, text=text)
                self._check_due = now + CHECK_INTERVAL
                continue
            admitted.append(managed)
            if managed not in self._young:
                self._young[managed] = _Young(key, Suspect(managed.spec.name, since, now))
        self._write()
        return admitted

    def due(self) -> list[float]:
        times = [young.attached + SETTLED for young in self._young.values() if young.attached is not None]
        return [*times, self._check_due] if any(_is_quarantined(managed) for managed in self._programs) else times

    def work(self) -> None:
        now, before = time.monotonic(), list(self._young)
        self._settled.intersection_update(self._programs)
        for managed in [e for e in self._programs if e.fds.links and e not in self._young and e not in self._settled]:
            self._adopt(managed)
        for managed, young in list(self._young.items()):
            if not managed.fds.links and not self._programs.is_loading(managed):
                del self._young[managed]
            elif young.attached is None and managed.fds.links:
                young.attached = now
            elif young.attached is not None and now - young.attached >= SETTLED:
                del self._young[managed]
                self._settled.add(managed)
        if self._unwritten or before != list(self._young):
            self._unwritten = False
            self._write()
        if now >= self._check_due and any(_is_quarantined(managed) for managed in self._programs):
            self._check_due = now + CHECK_INTERVAL
            self._release()

    def end(self) -> None:
        """Write down that the exporter ended and the host lives."""
        if self._young:
            self._change(lambda content: replace(content, ended=True))

    def _adopt(self, managed: ManagedProgram) -> None:
        """Inherited from a previous supervisor in this boot: keep the age recorded there."""
        suspect = self._before.get(key := self._key(managed.spec))
        if suspect is None or time.monotonic() - suspect.began >= SETTLED:
            self._settled.add(managed)
        else:
            self._young[managed] = _Young(key, suspect, attached=suspect.began)

    def _release(self) -> None:
        """Load what is not in the record any more."""
        self._read()
        for managed in [e for e in self._programs if _is_quarantined(e)]:
            if self._key(managed.spec) not in self._known.quarantined:
                log.get().info("no longer quarantined", program=managed.spec.name)
                self._programs.load_again(managed)

    def _read(self) -> None:
        """Read the file as it is seen from this boot; where it cannot be read, keep what it said before."""
        try:
            content = self._record.read()
            self._known = seen_from(content, self._boot) if self._boot else content
        except DamagedError as error:
            log.get().warning("crash record starts anew", file=str(self._record.path), error=str(error))
        except OSError as error:
            self._warn(error)

    def _write(self) -> None:
        young = {each.key: each.suspect for each in self._young.values()}
        self._change(lambda content: replace(seen_from(content, self._boot), ended=False, young=young))

    def _change(self, change: Callable[[Content], Content]) -> None:
        if not self._boot:
            return
        try:
            self._known = self._record.change(change, self._known)
        except OSError as error:
            self._known = change(self._known)
            self._warn(error)
        else:
            self._logged_error = ""

    def _warn(self, error: OSError) -> None:
        """Log each cause once: the programs run without a record."""
        cause = error.strerror or str(error)
        if cause != self._logged_error:
            hint = "a program that crashes this host will be loaded again after it (--state.dir)"
            log.get().warning(f"crash record not kept: {hint}", file=str(self._record.path), error=cause)
        self._logged_error = cause


def _is_quarantined(managed: ManagedProgram) -> bool:
    return managed.program.state is State.QUARANTINED


def _text(name: str, suspect: Suspect) -> str:
    return (
        f"{name}: attach: this host died within five minutes of {written(suspect.since)}, when it was attached (read "
        f"the kernel's last words, then change its text or clear it: bpf-exporter quarantine --clear {suspect.program})"
    )
