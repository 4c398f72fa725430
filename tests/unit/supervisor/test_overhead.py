"""Windows, budgets and pauses over hours, which no test waits for: the clock and the kernel's numbers are given here.
What the kernel really says is in tests/kernel/test_overhead.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from exporter.ipc.isolated import Outcome
from exporter.ipc.run_times import RunTime, RunTimes
from exporter.kernel.bpf_stats import RunStatistics
from exporter.program import Attachment, Program, Reason, State
from exporter.spec import ProgramSpec
from exporter.supervisor import overhead
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.overhead import Overhead, OverheadOptions

TRAPS = (4e-6, 5e-6)


class Host:
    """Programs, the statistics that the kernel has of them, and a clock. `load`: CPU seconds per second by program."""

    def __init__(self, options: OverheadOptions, *specs: ProgramSpec) -> None:
        self.now = 1000.0
        self.on = False  # the sysctl
        self.refused: OSError | None = None
        self.enabled: list[int] = []  # descriptors that are open
        self.load: dict[str, float] = {}
        self.runs_a_second = 1000
        self.ids = iter(range(1, 1000))
        self.loaded: dict[int, tuple[ManagedProgram, int, float]] = {}  # descriptor -> managed, id, since
        self.programs = [ManagedProgram(spec, Program(spec.name, State.RUNNING)) for spec in specs]
        self.sent: list[RunTimes] = []
        with patch("time.monotonic", self._clock):
            self.overhead = Overhead(options, self, self.sent.append)
        for managed in self.programs:
            self._load(managed)

    def run(self, seconds: float, until: State | None = None) -> None:
        """Let the loop of a supervisor work for so long, or until the first program is in that state."""
        ends = self.now + seconds
        with (
            patch("time.monotonic", self._clock),
            patch("exporter.supervisor.overhead.bpf_stats.are_on", lambda: self.on),
            patch("exporter.supervisor.overhead.bpf_stats.enable", self._enable),
            patch("exporter.supervisor.overhead.bpf_stats.read", self._read),
            patch("exporter.supervisor.overhead.uprobe_trap.measure", return_value=TRAPS),
        ):
            while True:
                self.overhead.work()
                if self.programs[0].program.state is until:
                    return
                due = min(self.overhead.due(), default=ends)
                if due >= ends:
                    break
                self.now = max(self.now, due)
            self.now = ends

    def times(self, name: str) -> RunTime:
        return self.sent[-1].programs[name]

    # managed_program.Programs

    def __iter__(self) -> Iterator[ManagedProgram]:
        return iter(self.programs)

    def is_loading(self, _: ManagedProgram) -> bool:
        return False

    def send(self, _: ManagedProgram) -> None: ...

    def stop(self, managed: ManagedProgram, state: State, reason: Reason, text: str) -> None:
        managed.detach()
        managed.program = replace(managed.program, state=state, reason=reason, text=text)

    def load_again(self, managed: ManagedProgram) -> None:
        managed.program = Program(managed.spec.name, State.RUNNING)
        self._load(managed)

    def _load(self, managed: ManagedProgram) -> None:
        managed.fds.programs["on_x"] = fd = os.open("/dev/null", os.O_RDONLY)
        self.loaded[fd] = (managed, next(self.ids), self.now)

    def _clock(self) -> float:
        return self.now

    def _enable(self) -> int:
        if self.refused:
            raise self.refused
        self.enabled.append(fd := os.open("/dev/null", os.O_RDONLY))
        return fd

    def _read(self, fd: int) -> RunStatistics:
        managed, number, since = self.loaded[fd]
        seconds = self.now - since
        return RunStatistics(number, int(self.load.get(managed.spec.name, 0) * seconds * 1e9),
                             int(self.runs_a_second * seconds), int(seconds))  # fmt: skip

    def are_open(self) -> bool:
        return any(os.path.exists(f"/proc/self/fd/{fd}") for fd in self.enabled)

    def close(self) -> None:
        self.overhead.end()
        for managed in self.programs:
            managed.detach()


def spec(name: str = "tcp", budget: float | None = None) -> ProgramSpec:
    return ProgramSpec(name=name, variants=[], metrics=[], source=Path("x.c"), text="", budget=budget)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host(OverheadOptions(), spec(budget=0.02))
    yield made
    made.close()


def state(host: Host) -> State:
    return host.programs[0].program.state


def test_three_windows_in_a_row_end_it_and_it_comes_back_after_growing_pauses(host: Host) -> None:
    host.load["tcp"] = 0.5
    host.run(60)  # windows end after 6 and 36 s
    assert state(host) is State.RUNNING
    host.run(10)
    assert state(host) is State.OVER_BUDGET
    program = host.programs[0].program
    assert program.reason is Reason.BUDGET
    assert program.text == (
        "tcp: budget: in 3 windows in a row more than 0.02 CPU seconds per second, 0.5 in the last "
        "(tried again in 300 s; filter earlier, or raise it)"
    )
    assert (host.times("tcp").exceeded, host.times("tcp").share) == (1, None)
    host.run(280)
    assert state(host) is State.OVER_BUDGET
    host.run(30)
    assert state(host) is State.RUNNING
    pauses = []
    for _ in range(11):
        host.run(1000, until=State.OVER_BUDGET)
        began = host.now
        host.run(100_000, until=State.RUNNING)
        pauses.append(host.now - began)
    assert pauses == [600, 1200, 2400, 4800, 9600, 19200, 38400, 76800, 86400, 86400, 86400]


def test_an_hour_within_the_budget_makes_the_next_pause_a_first_one(host: Host) -> None:
    host.load["tcp"] = 0.5
    host.run(100)
    host.load["tcp"] = 0.01
    host.run(300)
    assert state(host) is State.RUNNING
    host.run(3700)
    host.load["tcp"] = 0.5
    host.run(100)
    assert "tried again in 300 s" in host.programs[0].program.text


def test_two_windows_above_it_and_one_below_are_a_peak(host: Host) -> None:
    for _ in range(5):
        host.load["tcp"] = 0.5
        host.run(60)
        host.loaded[host.programs[0].fds.programs["on_x"]] = (host.programs[0], 1, host.now)
        host.load["tcp"] = 0.0
        host.run(30)
    assert state(host) is State.RUNNING


def test_statistics_are_on_for_a_second_in_thirty(host: Host) -> None:
    host.run(5.5)
    assert host.are_open()
    host.run(1)
    assert not host.are_open()
    host.run(28)
    assert len(host.enabled) == 1
    host.run(1)
    assert len(host.enabled) == 2


@pytest.mark.parametrize("stats", ["sample", "always"])
def test_statistics_are_off_as_soon_as_nothing_is_left_to_measure(stats: Literal["sample", "always"]) -> None:
    host = Host(OverheadOptions(stats=stats), spec())
    host.run(5.5)
    assert host.are_open()
    host.stop(host.programs[0], State.DISABLED, Reason.NONE, "")
    host.run(0.1)
    assert not host.are_open()
    host.load_again(host.programs[0])
    host.run(0.1 if stats == "always" else 30)
    assert len(host.enabled) == 2
    host.close()


def test_a_program_that_is_called_otherwise_is_told_of_at_once_and_goes_on_from_where_it_was() -> None:
    host = Host(OverheadOptions(stats="always"), spec(budget=0.02))
    host.run(36)
    host.programs[0].spec = spec("renamed", budget=0.02)
    host.run(1)
    assert host.sent[-1].programs == {"renamed": RunTime(share=0, budget=0.02, seconds=0, runs=35_000, missed=35)}
    host.run(30)
    assert host.times("renamed").runs == 65_000
    host.close()


def test_a_sample_shows_a_share_and_no_counter_of_runs(host: Host) -> None:
    host.load["tcp"] = 0.01
    host.run(7)
    times = host.times("tcp")
    assert times.share == pytest.approx(0.01)
    assert (times.seconds, times.runs, times.budget, times.missed) == (None, None, 0.02, 6)


def test_counters_are_there_before_the_first_window() -> None:
    host = Host(OverheadOptions(stats="always"), spec())
    host.run(0.1)
    assert host.times("tcp") == RunTime(seconds=0, runs=0, missed=0, exceeded=0)
    host.close()


def test_always_counts_every_run_and_goes_on_counting_when_it_is_loaded_again() -> None:
    host = Host(OverheadOptions(stats="always"), spec(budget=0.02))
    host.load["tcp"] = 0.5
    host.run(36)  # the first window ends after 35 s
    assert host.times("tcp").runs == 35_000
    assert host.times("tcp").seconds == pytest.approx(17.5)
    assert len(host.enabled) == 1
    host.run(60)
    assert state(host) is State.OVER_BUDGET
    before = host.times("tcp")
    assert before.runs == 95_000
    host.run(400)
    assert (host.times("tcp").runs or 0) > 95_000
    host.close()


def test_somebody_elses_statistics_are_used_as_they_are(host: Host) -> None:
    host.on = True
    host.run(7)
    assert host.enabled == []
    assert (host.times("tcp").share, host.times("tcp").runs) == (0, 6000)


def test_off_takes_nothing_without_a_budget_and_says_that_a_budget_wants_it() -> None:
    host = Host(OverheadOptions(stats="off"), spec())
    host.run(100)
    assert host.enabled == []
    assert host.times("tcp").share is None
    assert host.times("tcp").missed > 0
    host.close()
    host = Host(OverheadOptions(stats="off"), spec(budget=0.02))
    with capture_logs() as said:
        host.run(100)
    assert [line["programs"] for line in said] == [["tcp"]]
    assert len(host.enabled) == 4
    host.close()


def test_a_kernel_without_them_is_told_once_and_no_budget_is_held_against_anybody(host: Host) -> None:
    host.refused = OSError(22, "Invalid argument")
    with capture_logs() as said:
        host.load["tcp"] = 2
        host.run(300)
    assert [line["error"] for line in said] == ["Invalid argument"]
    assert "budgets not watched" in said[0]["event"]
    assert state(host) is State.RUNNING
    assert host.times("tcp").share is None


@pytest.mark.parametrize(("kind", "trap"), [("uprobe", 4e-6), ("usdt", 4e-6), ("uretprobe", 5e-6), ("kprobe", 0)])
def test_traps_are_added_for_each_run(kind: str, trap: float) -> None:
    host = Host(OverheadOptions(), spec(budget=0.5))
    attachments = (Attachment(kind, "x", "on_x", True), Attachment("uretprobe", "x", "another", True))
    host.programs[0].program = replace(host.programs[0].program, attachments=attachments)
    host.load["tcp"], host.runs_a_second = 0.001, 10_000
    with patch("exporter.supervisor.overhead.isolated.run_isolated", lambda work: Outcome(work(None), "", 0)):
        host.run(7)
    assert host.times("tcp").share == pytest.approx(0.001 + 10_000 * trap, rel=1e-3)
    assert host.sent[-1].trap == max(TRAPS)
    host.close()


def test_a_trap_that_cannot_be_measured_is_a_constant() -> None:
    host = Host(OverheadOptions(), spec())
    host.programs[0].program = replace(host.programs[0].program, attachments=(Attachment("uprobe", "x", "on_x", True),))
    with (
        patch("exporter.supervisor.overhead.isolated.run_isolated", side_effect=OSError(11, "no process")),
        capture_logs() as said,
    ):
        host.run(100)
    assert [line["event"] for line in said] == ["trap of a uprobe cannot be measured"]
    assert host.times("tcp").share == pytest.approx(1000 * overhead.UNKNOWN_TRAP, rel=1e-3)
    host.close()
