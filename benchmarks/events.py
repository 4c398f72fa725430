"""The cost of an event: our programs and ebpf_exporter's for the same thing, beside a program that does nothing.

    python -m benchmarks.events [--rounds 5] [--seconds 0.5] [--peer OUTDIR] [--json FILE]

Each round attaches every side alone, one after the other, under the same load on every CPU:

  program   ns per run by the kernel's own statistics (BPF_ENABLE_STATS, for as long as an fd is open), summed over the
            functions that one event runs. An empty program shows the cost of the statistics, so a program's own share
            is what it takes above that.
  event     ns that an event takes longer than with nothing attached, statistics off, the entry into the program
            included. It is wall time, less the time that other processes had the CPU: see load.c. Median of slices of
            1,000.

The smallest of the rounds counts: other work only adds to it. Needs root and gcc; --peer takes the OUTDIR of
peer/build.sh and needs clang.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import rows
from exporter.kernel import bpf_stats

CHECKOUT = Path(__file__).resolve().parents[1]
SLICES_A_SECOND = {"syscalls": 6000, "softirqs": 400}  # of load.c on a machine of 2023 or so
DEADLINE = 120.0  # seconds for a daemon to compile and attach

EMPTY = """
programs:
  - name: empty
    code: |
      BPF_ARRAY(nothing, u64, 1);
      int on_event(struct bpf_raw_tracepoint_args *ctx)
      {
          return 0;
      }
    attach: [%s]
    metrics:
      - {name: ebpf_nothing_total, type: counter, help: Stays 0., map: nothing}
"""


@dataclass(frozen=True)
class Case:
    """One thing that both exporters count."""

    what: str
    load: str
    ours: str  # a bundled program
    peer: str  # an example of the peer's
    events: tuple[str, ...]  # tracepoints that one unit of the load hits
    target: float


CASES = (
    Case("count a system call by name", "syscalls", "syscalls", "syscalls", ("sys_enter", "sys_exit"), 1 / 2),
    Case(
        "time a softirq's wait and run into histograms",
        "softirqs",
        "softirq_latency",
        "softirq-latency",
        ("softirq_raise", "softirq_entry", "softirq_exit"),
        2 / 3,
    ),
)


@dataclass
class Measured:
    """The ns of one side by round. `bare` is the event with nothing attached, just before."""

    program: list[float] = field(default_factory=list)
    event: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of load for each figure (%(default)s)")
    parser.add_argument("--peer", type=Path, help="OUTDIR of peer/build.sh")
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave the rows there")
    chosen = parser.parse_args()
    found: list[rows.Row] = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        load = _build_load(work)
        for case in CASES:
            found += _rows(case, _measure(case, work, load, chosen.rounds, chosen.seconds, chosen.peer))
    rows.leave(found, chosen.json)


def _measure(case: Case, work: Path, load: Path, rounds: int, seconds: float, peer: Path | None) -> dict[str, Measured]:
    slices = max(10, int(SLICES_A_SECOND[case.load] * seconds))
    sides = {"empty": _empty(case, work), "ours": _ours(case, work)}
    if peer:
        sides["peer"] = _peer(case, work, peer)
    measured = {side: Measured() for side in sides}
    for _ in range(rounds):
        for side, (command, port) in sides.items():
            measured[side].bare.append(_event_time(load, case.load, slices))
            with _attached(command, port, functions=len(case.events)) as ids:
                measured[side].event.append(_event_time(load, case.load, slices))
                measured[side].program.append(_program_time(ids, load, case.load, slices))
    return measured


def _rows(case: Case, measured: dict[str, Measured]) -> list[rows.Row]:
    """Return the rows of a case, first the promised one: the time of a program above an empty one."""
    program = {side: min(one.program) for side, one in measured.items()}
    event = {side: min(one.event) - min(one.bare) for side, one in measured.items()}
    floor = program["empty"]
    above = {side: ns - floor for side, ns in program.items()}
    compared = "peer" in measured
    return [
        rows.Row(
            f"{case.what}: the program, above an empty one",
            above["ours"],
            "ns",
            above.get("peer"),
            ratio=above["ours"] / above["peer"] if compared else None,
            target=case.target,
        ),
        rows.Row(
            f"{case.what}: the program, as the statistics say",
            program["ours"],
            "ns",
            program.get("peer"),
            floor,
            program["ours"] / program["peer"] if compared else None,
        ),
        rows.Row(
            f"{case.what}: all that the event takes longer",
            event["ours"],
            "ns",
            event.get("peer"),
            event["empty"],
            event["ours"] / event["peer"] if compared else None,
        ),
    ]


# The load


def _build_load(work: Path) -> Path:
    binary = work / "load"
    subprocess.run(["gcc", "-O2", "-o", str(binary), str(CHECKOUT / "benchmarks/load.c")], check=True)
    return binary


def _event_time(load: Path, kind: str, slices: int) -> float:
    """Return the median ns of an event, under load on all CPUs."""
    cpus = sorted(os.sched_getaffinity(0))
    running = [
        subprocess.Popen([str(load), kind, str(cpu), str(slices)], stdout=subprocess.PIPE, text=True) for cpu in cpus
    ]
    texts = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit(f"load {kind} ended with {[process.returncode for process in running]}")
    return statistics.median(float(ns) for text in texts for ns in text.split())


def _program_time(ids: list[int], load: Path, kind: str, slices: int) -> float:
    """Return the ns that the programs took for one event, by their run statistics; each function runs once an event."""
    before = [_statistics(number) for number in ids]
    with _statistics_on():
        _event_time(load, kind, slices)
    total = 0.0
    for number, (ns, runs) in zip(ids, before, strict=True):
        ns_after, runs_after = _statistics(number)
        total += (ns_after - ns) / (runs_after - runs)
    return total


@contextmanager
def _statistics_on() -> Iterator[None]:
    """Enable run statistics of all programs for as long as the fd is open (5.8, d46edd671a14)."""
    fd = bpf_stats.enable()
    try:
        yield
    finally:
        os.close(fd)


def _statistics(program: int) -> tuple[int, int]:
    """Return the ns and runs so far of the program with this id."""
    shown = subprocess.run(["bpftool", "-j", "prog", "show", "id", str(program)], capture_output=True, check=True)
    info = json.loads(shown.stdout)
    return info.get("run_time_ns", 0), info.get("run_cnt", 0)


# The sides: a daemon's command and port each


def _ours(case: Case, work: Path) -> tuple[list[str], int]:
    return _exporter(f"programs:\n  - use: {case.ours}\n", work / f"ours_{case.ours}.yaml", work)


def _empty(case: Case, work: Path) -> tuple[list[str], int]:
    points = ", ".join(f"{{raw_tracepoint: {event}, function: on_event}}" for event in case.events)
    return _exporter(EMPTY % points, work / f"empty_{case.ours}.yaml", work)


def _exporter(text: str, config: Path, work: Path) -> tuple[list[str], int]:
    config.write_text(text)
    port = _free_port()
    owner = str(CHECKOUT.stat().st_uid)
    return [
        *(sys.executable, "-m", "exporter", "run", "--config.file", str(config), "--config.trust-owner", owner),
        *("--web.listen-address", f"127.0.0.1:{port}", "--cache.dir", str(work / "cache"), "--log.level", "error"),
    ], port


def _peer(case: Case, work: Path, built: Path) -> tuple[list[str], int]:
    """Compile the peer's example as its own Makefile does, and run its exporter as build.sh left it."""
    built, name = built.resolve(), case.peer
    examples, machine = built / "peer/examples", {"x86_64": "x86", "aarch64": "arm64"}[os.uname().machine]
    include = [f"-I{examples}", f"-I{built}/peer/include/{machine}", f"-I{built}/dest/usr/include"]
    target = ["-mcpu=v3", "-g", "-O2", "-target", "bpf", f"-D__TARGET_ARCH_{machine}"]
    compiled = ["-c", str(examples / f"{name}.bpf.c"), "-o", str(work / f"{name}.bpf.o")]
    subprocess.run(["clang", *target, *include, *compiled], check=True)
    (work / f"{name}.yaml").write_bytes((examples / f"{name}.yaml").read_bytes())
    port = _free_port()
    return [
        *("env", f"LD_LIBRARY_PATH={built}/dest/usr/lib", str(built / "ebpf_exporter")),
        *(f"--config.dir={work}", f"--config.names={name}", f"--web.listen-address=127.0.0.1:{port}"),
    ], port


@contextmanager
def _attached(command: list[str], port: int, functions: int) -> Iterator[list[int]]:
    """Run a daemon, and give the ids of its programs once it has attached as many as there are events."""
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + DEADLINE
            while len(ids := _linked(process.pid)) < functions or not _serves(port):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    sys.exit(f"{command[0]} did not attach:\n{log.read().decode(errors='replace')}")
                time.sleep(0.05)
            yield ids
        finally:
            process.send_signal(signal.SIGTERM)


def _linked(pid: int) -> list[int]:
    """Return the ids of the programs of the process's bpf links, one for each link, from /proc/PID/fdinfo."""
    ids = []
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            with suppress(OSError):
                text = entry.read_text()
                if "link_type:" in text and (program := re.search(r"^prog_id:\s*(\d+)", text, re.MULTILINE)):
                    ids.append(int(program[1]))
    return ids


def _serves(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
