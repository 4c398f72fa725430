"""The CPU time of programs: measured in windows, sent to the server, and kept within budgets.

Run statistics cost every BPF program of the host some 100 ns a run while they are on, so they are on for a second in
thirty. Where the sysctl kernel.bpf_stats_enabled has them on, every run is counted anyway, and that is used.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter import log
from exporter.ipc import isolated
from exporter.ipc.run_times import RunTime, RunTimes
from exporter.kernel import bpf_stats, uprobe_trap
from exporter.kernel.bpf_stats import RunStatistics
from exporter.program import Reason, State
from exporter.supervisor.managed_program import ManagedProgram, Programs

FIRST = 5.0  # seconds until the first window: loading is over on most hosts
WINDOWS = 3  # in a row above the budget, and the program is detached
LONGEST_PAUSE = 86400.0  # seconds
FORGIVEN = 3600.0  # seconds within the budget, and the next pause is a first one again
# Seconds, where the trap cannot be measured: 4 us were measured in virtual machines, 1 to 2 us are usual without.
UNKNOWN_TRAP = 4e-6
_TRAPS = {"uprobe": 0, "usdt": 0, "uretprobe": 1}  # kind -> which number of `uprobe_trap.measure`


@dataclass(frozen=True, slots=True)
class OverheadOptions:
    """stats     off: only while a program has a budget; sample: a window in each interval; always: all the time
    interval  seconds from the start of one window to that of the next; with `always` a window is that long
    window    seconds
    pause     seconds until a program that exceeded its budget is tried again, twice that the next time
    """

    stats: Literal["off", "sample", "always"] = "sample"
    interval: float = 30.0
    window: float = 1.0
    pause: float = 300.0


@dataclass(slots=True)
class _Window:
    """One that is under way. `fd` switches the statistics on; None where the sysctl does."""

    fd: int | None
    began: float
    ends: float
    before: dict[ManagedProgram, dict[str, RunStatistics]]


@dataclass(slots=True)
class _Record:
    """The measurements and pauses of one program."""

    above: int = 0  # windows in a row
    share: float | None = None
    pause: float = 0.0  # the last one
    again: float = 0.0  # when to load it again
    within: float | None = None  # since when it has kept to its budget


@dataclass(slots=True)
class _Total:
    """Of all programs that were loaded under one name: the last reading of each that is loaded now, and the others."""

    ns: int = 0
    runs: int = 0
    missed: int = 0
    exceeded: int = 0
    loaded: dict[int, RunStatistics] = field(default_factory=dict)

    def update(self, read: Iterable[RunStatistics]) -> None:
        now = {each.id: each for each in read}
        for gone in self.loaded.keys() - now.keys():
            last = self.loaded[gone]
            self.ns, self.runs, self.missed = self.ns + last.ns, self.runs + last.runs, self.missed + last.missed
        self.loaded = now

    def sum(self) -> tuple[int, int, int]:
        """Nanoseconds, runs, missed runs."""
        loaded = self.loaded.values()
        return (
            self.ns + sum(each.ns for each in loaded),
            self.runs + sum(each.runs for each in loaded),
            self.missed + sum(each.missed for each in loaded),
        )


class Overhead:
    """A part of the supervisor's loop. `send` is called with the numbers when they change."""

    def __init__(
        self,
        options: OverheadOptions,
        programs: Programs,
        send: Callable[[RunTimes], None],
    ) -> None:
        self._options = options
        self._programs = programs
        self._send_times = send
        self._next = time.monotonic() + min(FIRST, options.interval)
        self._window: _Window | None = None
        self._records: dict[ManagedProgram, _Record] = {}
        self._totals: dict[str, _Total] = {}
        self._counts_all = options.stats == "always"
        self._traps: tuple[float, float] | None = None
        self._refused = ""
        self._overruled = False
        self._sent: list[
            tuple[ManagedProgram, str, bool, float | None]
        ] = []  # the programs when run times were last sent
        self.times = RunTimes()

    # Part

    def due(self) -> list[float]:
        paused = [self._records[e].again for e in self._programs if self._is_paused(e) and e in self._records]
        if not any(e.fds.programs for e in self._programs):
            return paused if self._window is None else [*paused, 0.0]
        return [*paused, self._window.ends if self._window else self._next]

    def work(self) -> None:
        now = time.monotonic()
        for gone in [managed for managed in self._records if managed not in self._programs]:
            del self._records[gone]
        for managed in [e for e in self._records if self._is_paused(e) and now >= self._records[e].again]:
            self._programs.load_again(managed)
        if not any(managed.fds.programs for managed in self._programs):
            if self._window is not None:
                self._close()  # there is nothing to measure, and other programs of the host would go on to be slower
                self._next = now if self._options.stats == "always" else self._next
        elif self._window is not None and now >= self._window.ends:
            self._end_window(self._window)
        elif self._window is None and now >= self._next:
            self._next = now + self._options.interval
            self._begin_window()
        if self._sent != self._described():
            self._follow_names()
            self._send()

    def end(self) -> None:
        self._close()

    # Windows

    def _begin_window(self) -> None:
        self._measure_traps()
        fd = self._switched_on()
        always = self._options.stats == "always"
        length = self._options.interval if always else min(self._options.window, self._options.interval)
        now = time.monotonic()
        self._window = _Window(fd, now, now + length, dict(self._read()))

    def _switched_on(self) -> int | None:
        """Return the descriptor that switches run statistics on; None where they are on already, or stay off."""
        fd, refused, self._counts_all = None, "", bpf_stats.are_on()
        if not self._counts_all and self._are_wanted():
            try:
                fd = bpf_stats.enable()
                self._counts_all = self._options.stats == "always"
            except OSError as error:
                refused = error.strerror or str(error)
        if refused and refused != self._refused:
            hint = "this needs Linux 5.8 and CAP_SYS_ADMIN, or sysctl kernel.bpf_stats_enabled=1"
            log.get().warning(f"run times are not known, and budgets not watched: {hint}", error=refused)
        self._refused = refused
        return fd

    def _are_wanted(self) -> bool:
        """Return whether to switch them on: budgets need them even with `off`, which is logged once."""
        if self._options.stats != "off":
            return True
        wanting = sorted(managed.spec.name for managed in self._programs if managed.spec.budget is not None)
        if wanting and not self._overruled:
            log.get().warning("run times are sampled although they are off: programs have a budget", programs=wanting)
        self._overruled = bool(wanting)
        return self._overruled

    def _end_window(self, window: _Window) -> None:
        known = window.fd is not None or self._counts_all
        after = dict(self._read())
        seconds = time.monotonic() - window.began
        for managed, read in after.items():
            self._totals.setdefault(managed.spec.name, _Total()).update(read.values())
            record = self._records.setdefault(managed, _Record())
            before = window.before.get(managed)
            record.share = None if before is None or not known else self._cost(managed, before, read) / seconds
        if self._options.stats == "always" and known:
            now, fd = time.monotonic(), window.fd
            self._window = _Window(self._switched_on() if fd is None else fd, now, now + self._options.interval, after)
        else:
            self._close()
        for managed in after:
            self._judge(managed, self._records[managed])
        self._send()

    def _close(self) -> None:
        if self._window is not None and self._window.fd is not None:
            os.close(self._window.fd)
        self._window = None

    def _read(self) -> Iterator[tuple[ManagedProgram, dict[str, RunStatistics]]]:
        """Read the statistics of every program that is loaded, by function."""
        for managed in self._programs:
            if managed.fds.programs:
                yield managed, {name: bpf_stats.read(fd) for name, fd in managed.fds.programs.items()}

    # Costs

    def _cost(
        self, managed: ManagedProgram, before: Mapping[str, RunStatistics], after: Mapping[str, RunStatistics]
    ) -> float:
        """Return the CPU seconds between two readings."""
        known = {each.id: each for each in before.values()}
        seconds = 0.0
        for name, now in after.items():
            then = known.get(now.id)
            if then is not None:
                seconds += (now.ns - then.ns) * 1e-9 + (now.runs - then.runs) * self._trap(managed, name)
        return seconds

    def _trap(self, managed: ManagedProgram, function: str) -> float:
        """Return the seconds of a run that no statistics show: of a function at several kinds, those of the dearest."""
        name = function.partition("#")[0]  # "on_x#2" is on_x, loaded a second time
        kinds = {a.kind for a in managed.program.attachments if a.function == name and a.kind in _TRAPS}
        return max((self._traps[_TRAPS[kind]] for kind in kinds), default=0.0) if self._traps and kinds else 0.0

    def _measure_traps(self) -> None:
        """Measure once, when a program needs it: 0.2 s in a child, because the mapped page stays with its process."""
        kinds = {a.kind for managed in self._programs for a in managed.program.attachments}
        if self._traps is not None or not kinds & _TRAPS.keys():
            return
        try:
            outcome = isolated.run_isolated(lambda _: json.dumps(uprobe_trap.measure()))
            entry, back = json.loads(outcome.answer)
            self._traps = float(entry), float(back)
            log.get().info("trap of a uprobe measured", entry=f"{entry * 1e6:.1f} us", back=f"{back * 1e6:.1f} us")
        except (OSError, TypeError, ValueError) as error:
            self._traps = UNKNOWN_TRAP, UNKNOWN_TRAP
            taken = f"{UNKNOWN_TRAP * 1e6:.0f} us"
            log.get().warning("trap of a uprobe cannot be measured", error=str(error), taken=taken)

    # Budgets

    def _is_paused(self, managed: ManagedProgram) -> bool:
        return managed.program.state is State.OVER_BUDGET

    def _judge(self, managed: ManagedProgram, record: _Record) -> None:
        budget, now = managed.spec.budget, time.monotonic()
        if budget is None or record.share is None:
            record.above = 0
            return
        if record.share <= budget:
            record.above = 0
            record.within = now if record.within is None else record.within
            if now - record.within >= max(FORGIVEN, record.pause):
                record.pause = 0.0
            return
        record.above, record.within = record.above + 1, None
        if record.above < WINDOWS:
            log.get().warning("program above its budget", program=managed.spec.name, share=_digits(record.share),
                              budget=budget, windows=f"{record.above} of {WINDOWS}")  # fmt: skip
            return
        record.above = 0
        record.pause = min(2 * record.pause or self._options.pause, LONGEST_PAUSE)
        record.again = now + record.pause
        self._totals[managed.spec.name].exceeded += 1
        text = (
            f"{managed.spec.name}: budget: in {WINDOWS} windows in a row more than {budget:g} CPU seconds per second, "
            f"{_digits(record.share)} in the last (tried again in {record.pause:.0f} s; filter earlier, or raise it)"
        )
        record.share = None
        self._programs.stop(managed, State.OVER_BUDGET, Reason.BUDGET, text)

    def _described(self) -> list[tuple[ManagedProgram, str, bool, float | None]]:
        return [
            (managed, managed.spec.name, bool(managed.fds.programs), managed.spec.budget) for managed in self._programs
        ]

    def _follow_names(self) -> None:
        """Start a renamed program at its last reading, so that its counters do not jump."""
        names = {managed: name for managed, name, *_ in self._sent}
        for managed in self._programs:
            before, now = names.get(managed, managed.spec.name), managed.spec.name
            if before != now and before in self._totals:
                self._totals.setdefault(now, _Total()).update(self._totals[before].loaded.values())

    def _send(self) -> None:
        self._sent, times = self._described(), {}
        for managed in self._programs:
            name = managed.spec.name
            total, record = self._totals.get(name), self._records.get(managed)
            if total is None and managed.spec.budget is None and not managed.fds.programs:
                continue
            ns, runs, missed = (total or _Total()).sum()
            times[name] = RunTime(
                share=record.share if record and managed.fds.programs else None,
                budget=managed.spec.budget,
                exceeded=total.exceeded if total else 0,
                missed=missed,
                seconds=ns * 1e-9 if self._counts_all else None,
                runs=runs if self._counts_all else None,
            )
        self.times = RunTimes(times, max(self._traps) if self._traps else None)
        self._send_times(self.times)


def _digits(share: float) -> str:
    return f"{share:.3g}"
