"""Seconds from the command to the last program attached: cold, when everything is compiled, and warm, from the cache.

    python -m benchmarks.start [--programs 25] [--rounds 3] [--json FILE]

The programs are the bundled ones, repeated under other names where there are fewer. CPU seconds are those of all roles
until then, loaders among them: a start on a busy host takes longer, but not more CPU. The last line counts the
processes of a warm start that had LLVM or bcc mapped at any time; that start is not timed, because the check costs
time. Needs root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import memory, rows

PROGRAMS = memory.CHECKOUT / "programs"
COMPILER = ("libLLVM", "libclang", "libbcc")
COLD, WARM = 0.4, 2.0  # seconds promised: a program on two CPUs; 25 programs


@dataclass(frozen=True, slots=True)
class Start:
    """A start: `running` of `programs`, seconds of the clock and of all CPUs until ready, and the number of processes
    with one of the compiler's libraries."""

    programs: int
    running: int
    seconds: float
    cpu: float
    compiler: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave the rows there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.yaml"
        config.write_text(yaml.safe_dump({"programs": entries(chosen.programs)}))
        cold = [_start(config, Path(scratch) / f"cache{number}") for number in range(chosen.rounds)]
        warm = [_start(config, Path(scratch) / "cache0") for _ in range(chosen.rounds)]
        seen = _start(config, Path(scratch) / "cache0", look=True).compiler
    found = [
        *_rows(f"cold, a program of {chosen.programs}", cold, 1 / chosen.programs, COLD),
        *_rows(f"warm, {chosen.programs} programs", warm, 1.0, WARM),
        rows.Row("warm, processes with LLVM or bcc mapped", seen, "processes", ratio=seen, target=0.0),
    ]
    rows.leave(found, chosen.json)


def entries(count: int) -> list[dict[str, object]]:
    """Return `count` items of `programs:`. A program that is repeated and its metrics have another name."""
    found = []
    names = sorted(path.stem for path in PROGRAMS.glob("*.yaml"))
    for number in range(count):
        again, name = number // len(names), names[number % len(names)]
        document = yaml.safe_load((PROGRAMS / f"{name}.yaml").read_text())
        document["source"] = str(PROGRAMS / f"{name}.c")
        if again:
            document["name"] = f"{name}_{again}"
            for metric in document["metrics"]:
                metric["name"] = metric["name"].replace("ebpf_", f"ebpf{again}_", 1)
        found.append(document)
    return found


def _rows(what: str, starts: Sequence[Start], share: float, target: float) -> list[rows.Row]:
    """Return rows of the seconds of the clock, for which `target` is promised, and of all CPUs. Both are medians times
    `share`."""
    seconds = statistics.median(start.seconds for start in starts) * share
    cpu = statistics.median(start.cpu for start in starts) * share
    ran = f"{starts[0].running} of {starts[0].programs} run here"
    return [
        rows.Row(f"{what}; target: of {target} s ({ran})", seconds, "s", ratio=seconds / target, target=1.0),
        rows.Row(f"{what}, of all CPUs together", cpu, "CPU s"),
    ]


def _start(config: Path, cache: Path, look: bool = False) -> Start:
    began = time.monotonic()
    with memory.exporter(config, cache) as (process, url):
        compiler: set[int] = set()
        while not _ready(url):
            if process.poll() is not None:
                raise SystemExit(
                    f"the exporter ended with {process.returncode}: run it by hand with this configuration"
                )
            compiler |= {pid for pid in (process.pid, *memory.below(process.pid)) if look and _has_compiler(pid)}
            time.sleep(0 if look else 0.02)
        seconds = time.monotonic() - began
        cpu = sum(map(_cpu_seconds, (process.pid, *memory.below(process.pid))))
        states = [line for line in memory.get(url + "/metrics").decode().splitlines() if "_program_state{" in line]
    programs = [line for line in states if 'state="running"' in line]
    return Start(len(programs), sum(line.endswith(" 1") for line in programs), seconds, cpu, len(compiler))


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/-/ready", timeout=10):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _has_compiler(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
    return any(library in text for library in COMPILER)


def _cpu_seconds(pid: int) -> float:
    """Of a process and of its children that have ended (utime to cstime: proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
