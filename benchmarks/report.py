"""Run every benchmark on this machine, one after the other, and write docs/performance.md.

    python -m benchmarks.report [--peer OUTDIR] [--only events,hostile] [--rows DIR] [--out docs/performance.md]

Each script runs as a process of its own and writes its rows to `--json FILE` (rows.py). A script that fails is named in
the report, and makes this end with 1. With --rows DIR the rows stay there, and scripts that --only does not name are
reported from the rows that are there. Needs root; nothing else should be running.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import rows

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Script:
    """A module of this folder, and the text of its section."""

    name: str
    title: str
    text: str


SCRIPTS = (
    Script(
        "scrape",
        "Scrapes",
        "Time of a whole scrape over loopback, by number of series. The floor is the kernel's own batch copy of the "
        "map plus writing the bytes once. Where a row does not say otherwise the connection is kept, as Prometheus "
        "keeps it, and nothing has changed since the scrape before; a host that counts is somewhere between that and "
        "the row where every value is higher. Of the peer's time 1,000 series may take a half and 10,000 a tenth, "
        "because a millisecond every 15 seconds is not worth code; where a scrape takes the peer seconds, from 100,000 "
        "series on, a twentieth is promised.",
    ),
    Script(
        "events",
        "Events",
        "The cost of counting where it happens. The program's own time is that of the kernel's run statistics, less "
        "that of a program that does nothing (the floor), which is the cost of the statistics. The row below is how "
        "much longer the whole event takes, statistics off, the entry into the program included.",
    ),
    Script(
        "memory",
        "Memory",
        "Proportional memory (PSS) of all long-lived roles together. The peer takes 41 to 53 MB for as much, which is "
        "what an exporter may cost; the rows of scrapes above have both in the same run at every size.",
    ),
    Script("start", "Start", "From the command to the last program attached."),
    Script(
        "drain",
        "Drained maps",
        "Maps with fewer entries than there are keys, read and emptied while two CPUs write to them.",
    ),
    Script(
        "hostile",
        "A hostile host",
        "Processes with random names and paths that open random ports, against the default limits, scraped all the "
        "time.",
    ),
)

HEAD = """# Performance

Made by `make bench{argument}` on {day}; do not edit. Ratios come first: they carry over to other machines, seconds do
not. "target" is the most that the project promises the ratio to be: ours / peer where there is a peer, ours / floor
where the floor is promised; each row says which.

{machine}"""

LIMITS = """## What it cannot do

- Entering a raw tracepoint costs 10 to 50 ns per event and attached program, whatever the program does. `syscalls` on a
  host with a million system calls a second costs 5 to 10 % of a CPU.
- Most of the cost of a latency is reading the clock (20 ns here, 57 ns on another virtual machine), two or three times
  per event. No program can be faster than its clock reads.
- A uprobe or USDT probe is a trap into the kernel: 1 to 2 µs on bare metal, 4 to 16 µs in virtual machines. Run
  statistics do not include it.
- Run statistics cost 20 to 110 ns per run of *every* BPF program of the host while they are on, so they are on for a
  second in thirty only.
- The kernel copies per-CPU maps for every *possible* CPU: with 128 CPUs a scrape of N keys reads 128 N values.
- A full hash counts how many events it loses, not which.
- An LRU map is approximate: it evicts keys before it is full.
- The first scrape after many new keys writes their text, and is slower than later ones.
- A scrape that finds that keys came or went takes 1 to 3 ms more, however few they were. Of 1,000 series that is some
  two and a half times what a scrape takes that finds nothing new, which is why nothing is promised of it, and still
  less than the peer takes for that.
- A scrape of few series is mostly waking up, out of cold caches. More programs cost more there than more series.
- All figures come from one machine with two CPUs. Contention between many CPUs is not measured; the effect of many CPUs
  on the size of buffers is only simulated.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="OUTDIR of peer/build.sh")
    parser.add_argument("--only", default="", help="names of scripts, separated by commas; all if left out")
    parser.add_argument("--rows", type=Path, metavar="DIR", help="keep rows here, as NAME.json")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs/performance.md", help="(%(default)s)")
    chosen = parser.parse_args()
    only = set(filter(None, chosen.only.split(",")))
    if unknown := only - {script.name for script in SCRIPTS}:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    sections: list[str] = []
    everything: list[rows.Row] = []
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        for script in SCRIPTS:
            left = (chosen.rows or Path(temporary)) / f"{script.name}.json"
            if only and script.name not in only:
                if not left.exists():
                    continue
            elif (options := _options(script, chosen.peer)) is None:
                continue
            else:
                print(f"== {script.title}", flush=True)
                left.unlink(missing_ok=True)
                _run(script, [*options, "--json", str(left)])
            found = rows.read(left) if left.exists() else None  # a script that found an error writes rows all the same
            if found is None:
                failed.append(script.name)
            everything += found or []
            sections.append(section(script, found))
    page = [
        HEAD.format(
            argument=" PEER=DIR" if chosen.peer else "", day=time.strftime("%Y-%m-%d"), machine=_machine(chosen.peer)
        ),
        in_short(everything),
        *sections,
        LIMITS,
    ]
    chosen.out.write_text("\n".join(page))
    print(f"written: {chosen.out.name}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def in_short(found: Sequence[rows.Row]) -> str:
    """Return how many targets are met, and each that is not."""
    promised = [row for row in found if row.met is not None]
    missed = [row for row in promised if not row.met]
    lines = [f"Of {len(promised)} targets {len(promised) - len(missed)} are met{'.' if not missed else ', not:'}"]
    if missed:
        lines += ["", *(f"- {row.what}: {row.ratio:.3g} instead of {row.target:.3g}" for row in missed)]
    return "\n".join(lines) + "\n"


def section(script: Script, found: Sequence[rows.Row] | None) -> str:
    """Return a section: heading, text and table. `found` is None for a script that failed."""
    if found is None:
        return f"## {script.title}\n\n`benchmarks/{script.name}.py` failed on this machine.\n"
    lines = [rows.HEAD, ["---:", "---", "---", *["---:"] * 3, "---"], *rows.table(found)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    text = textwrap.fill(f"{script.text} By `benchmarks/{script.name}.py`.", 118, break_on_hyphens=False)
    return f"## {script.title}\n\n{text}\n\n{table}\n"


def _options(script: Script, peer: Path | None) -> list[str] | None:
    """Return the options of a script: `--peer` where its `--help` has it. None for a script that writes no rows."""
    if not (CHECKOUT / f"benchmarks/{script.name}.py").exists():
        return None
    shown = subprocess.run([*_command(script), "--help"], cwd=CHECKOUT, capture_output=True, text=True).stdout
    if "--json" not in shown:
        print(f"== {script.title}: benchmarks/{script.name}.py has no --json, left out", flush=True)
        return None
    return ["--peer", str(peer.resolve())] if peer and "--peer" in shown else []


def _run(script: Script, options: Sequence[str]) -> None:
    done = subprocess.run([*_command(script), *options], cwd=CHECKOUT)
    if done.returncode:
        print(f"benchmarks/{script.name}.py ended with {done.returncode}", file=sys.stderr)


def _command(script: Script) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{script.name}"]


def _machine(peer: Path | None) -> str:
    """Return a list of what the figures depend on; no path and no name of the machine."""
    facts = {
        "machine": f"{os.cpu_count()} CPUs ({_cpu()}), {_memory()}{_virtual()}",
        "kernel": f"Linux {os.uname().release} {platform.machine()}, "
        f"bpf_jit_enable {_file('/proc/sys/net/core/bpf_jit_enable')}",
        "system": _first(r'PRETTY_NAME="(.*)"', _file("/etc/os-release")),
        "versions": f"Python {platform.python_version()}, bcc {_package('python3-bpfcc')}, numpy {_module('numpy')}, "
        f"isal {_module('isal')}",
        "peer": _peer_version(peer) if peer else "none in this run: rows without a peer have no ratio to it",
    }
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def _cpu() -> str:
    return _first(r"model name\s*: (.*)", _file("/proc/cpuinfo"))


def _memory() -> str:
    kilobytes = int(_first(r"MemTotal:\s+(\d+)", _file("/proc/meminfo")))
    return f"{kilobytes / (1 << 20):.0f} GiB"


def _virtual() -> str:
    return ", virtual" if re.search(r"^flags.*\bhypervisor\b", _file("/proc/cpuinfo"), re.MULTILINE) else ""


def _package(name: str) -> str:
    return subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True).stdout or "?"


def _module(name: str) -> str:
    return metadata.version(name)


def _peer_version(peer: Path) -> str:
    """Return the name and version of the peer, by the tag of its source."""
    described = subprocess.run(
        ["git", "-C", str(peer / "peer"), "describe", "--tags"], capture_output=True, text=True
    ).stdout.strip()
    return f"ebpf_exporter {described or '(no version known)'}, its examples compiled by its own Makefile's options"


def _file(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "?"


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "?"


if __name__ == "__main__":
    main()
