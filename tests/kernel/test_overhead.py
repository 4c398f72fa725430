"""What programs take of the CPU, as a real exporter measures it here, and what becomes of one over its budget."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.ipc import isolated
from exporter.kernel import bpf_stats, uprobe_trap
from tests.daemon import Daemon, running
from tests.kernel.loaded import NOTHING, kernel_ids, wait_gone
from tests.kernel.renames import CONFIG, rename
from tests.waiting import until

pytestmark = pytest.mark.alone

WORK = """\
  - name: work
    budget: {budget}
    defines: {{ROUNDS: 2000}}
    code: |
      BPF_ARRAY(work, u64, 1);
      int on_work(void *ctx)
      {{
          u32 first = 0;
          u64 *value = work.lookup(&first);

          if (!value)
              return 0;
          for (int i = 0; i < ROUNDS; i++)
              __sync_fetch_and_add(value, 1);
          return 0;
      }}
    attach: [{{raw_tracepoint: task_rename, function: on_work}}]
    metrics: [{{name: ebpf_work, type: counter, help: Work., map: work, labels: []}}]
"""
PROBE = """\
  - name: probe
    budget: 1000
    code: |
      BPF_ARRAY(probed, u64, 1);
      int on_probe(void *ctx) { return 0; }
    attach: [{uprobe: "libc.so.6:getppid", function: on_probe}]
    metrics: [{name: ebpf_probed, type: gauge, help: Nothing., map: probed, labels: []}]
"""
SHORT = ("--overhead.interval", "400ms", "--overhead.window", "200ms")
RENAMES = "from tests.kernel.renames import rename\nimport os\nwhile True:\n    rename(200)\n    os.getppid()\n"


@pytest.fixture
def driven() -> Iterator[None]:
    """A process that fires the events all the time."""
    process = subprocess.Popen([sys.executable, "-c", RENAMES])
    yield
    process.kill()
    process.wait()


@contextlib.contextmanager
def exporter(directory: Path, programs: str, *arguments: str) -> Iterator[Daemon]:
    config = directory / "config.yaml"
    config.write_text("programs:\n" + programs)
    with running(config, directory, *arguments) as daemon:
        daemon.wait_ready()
        yield daemon


def own(daemon: Daemon, name: str, program: str) -> float | None:
    return daemon.samples().get((f"bpf_exporter_{name}", frozenset({("program", program)})))


def state(daemon: Daemon, program: str) -> str:
    states = {
        dict(labels)["state"]: value
        for (name, labels), value in daemon.samples().items()
        if name == "bpf_exporter_program_state" and ("program", program) in labels
    }
    return next(name for name, value in states.items() if value)


@pytest.mark.usefixtures("driven")
def test_a_program_over_its_budget_is_detached_and_tried_again(tmp_path: Path) -> None:
    modest = CONFIG.removeprefix("programs:\n").replace("    code:", "    budget: 50\n    code:", 1)
    programs = WORK.format(budget=0.0001) + modest
    with exporter(tmp_path, programs, *SHORT, "--overhead.pause", "5s") as daemon:
        both = kernel_ids(daemon.process.pid)
        until(lambda: state(daemon, "work") == "over_budget", lambda: daemon.log, 90)
        assert "work" in daemon.log
        assert "in 3 windows in a row more than 0.0001 CPU seconds per second" in daemon.log
        assert "tried again in 5 s" in daemon.log
        left = kernel_ids(daemon.process.pid)  # it may be back by now, but an id is never given twice
        gone = {kind: both[kind] - left[kind] for kind in both}
        assert {kind: len(gone[kind]) for kind in ("prog", "link")} == {"prog": 1, "link": 1}
        assert wait_gone(gone) == NOTHING
        assert state(daemon, "renames") == "running"
        assert (own(daemon, "program_budget_exceeded_total", "work") or 0) >= 1
        assert own(daemon, "program_budget_exceeded_total", "renames") == 0
        assert own(daemon, "program_budget_ratio", "work") == 0.0001
        until(lambda: bool(kernel_ids(daemon.process.pid)["prog"] - both["prog"]), lambda: daemon.log, 90)
        until(lambda: (own(daemon, "program_budget_exceeded_total", "work") or 0) >= 2, lambda: daemon.log, 90)
        until(lambda: "tried again in 10 s" in daemon.log, lambda: daemon.log, 90)


@pytest.mark.usefixtures("driven")
def test_samples_are_what_the_programs_take_and_no_counter_pretends_to_count_every_run(tmp_path: Path) -> None:
    with exporter(tmp_path, WORK.format(budget=100), *SHORT) as daemon:
        until(lambda: (own(daemon, "program_cpu_ratio", "work") or 0) > 0, lambda: daemon.log, 90)
        share = own(daemon, "program_cpu_ratio", "work") or 0
        assert share < 2 * (os.cpu_count() or 1)
        assert own(daemon, "program_missed_runs_total", "work") == 0
        if not bpf_stats.are_on():
            assert own(daemon, "program_runs_total", "work") is None
        assert state(daemon, "work") == "running"


def test_always_counts_every_run(tmp_path: Path) -> None:
    programs = CONFIG.removeprefix("programs:\n")
    with exporter(tmp_path, programs, "--overhead.stats", "always", "--overhead.interval", "300ms") as daemon:
        until(lambda: own(daemon, "program_cpu_ratio", "renames") is not None, lambda: daemon.log, 90)
        before = own(daemon, "program_runs_total", "renames") or 0
        rename(2300)
        until(lambda: (own(daemon, "program_runs_total", "renames") or 0) - before >= 2300, lambda: daemon.log, 90)
        assert 0 < (own(daemon, "program_run_seconds_total", "renames") or 0) < 60


def test_off_takes_no_run_times_and_a_budget_takes_them_all_the_same(tmp_path: Path) -> None:
    programs = CONFIG.removeprefix("programs:\n")
    with exporter(tmp_path, programs, "--overhead.stats", "off", *SHORT) as daemon:
        until(lambda: own(daemon, "program_missed_runs_total", "renames") is not None, lambda: daemon.log, 90)
        time.sleep(2)  # several windows
        assert (own(daemon, "program_cpu_ratio", "renames") is None) == (not bpf_stats.are_on())
    with exporter(tmp_path, WORK.format(budget=100), "--overhead.stats", "off", *SHORT) as daemon:
        until(lambda: own(daemon, "program_cpu_ratio", "work") is not None, lambda: daemon.log, 90)
        if not bpf_stats.are_on():
            assert "run times are sampled although they are off: programs have a budget" in daemon.log


@pytest.mark.usefixtures("driven")
def test_a_uprobe_is_charged_the_trap_that_run_statistics_do_not_show(tmp_path: Path) -> None:
    with exporter(tmp_path, PROBE, "--overhead.stats", "always", "--overhead.interval", "500ms") as daemon:
        until(lambda: (own(daemon, "program_runs_total", "probe") or 0) > 0, lambda: daemon.log, 90)
        until(lambda: (own(daemon, "program_cpu_ratio", "probe") or 0) > 0, lambda: daemon.log, 90)
        trap = daemon.value("bpf_exporter_uprobe_trap_seconds")
        assert 0 < trap < 1e-3
        # All runs so far by the clock of the kernel against the last window: the trap is many times the empty program.
        seconds = own(daemon, "program_run_seconds_total", "probe") or 0
        assert seconds / (own(daemon, "program_runs_total", "probe") or 1) < trap


def test_the_trap_of_a_uprobe_can_be_measured_here() -> None:
    outcome = isolated.run_isolated(lambda _: json.dumps(uprobe_trap.measure()))
    assert outcome.status == 0, outcome.output
    entry, back = json.loads(outcome.answer)
    assert 0 < entry < 1e-3
    assert 0 < back < 1e-3


def test_a_descriptor_of_statistics_is_not_the_sysctl_and_they_may_be_on_twice() -> None:
    before = bpf_stats.are_on()
    one, two = bpf_stats.enable(), bpf_stats.enable()
    assert bpf_stats.are_on() == before
    os.close(one)
    os.close(two)
