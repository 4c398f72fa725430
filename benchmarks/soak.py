"""Long tests and benchmarks, run one after the other to their end, with a table of the results.

    python -m benchmarks.soak [--only NAME,...]

A part is a script of this folder or a test with a larger number in its environment; the short form of each is in
`make test`. Needs root. Ends with 1 if one part failed; its last lines are below the table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

from benchmarks.report import CHECKOUT

LAST_LINES = 15


@dataclass(frozen=True)
class Part:
    """A command: `arguments` of Python, and its additional environment."""

    name: str
    shows: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


PARTS = (
    Part("load", "ten minutes of load", ("-m", "benchmarks.load")),
    Part("hostile", "100,000 processes with random names and ports", ("-m", "benchmarks.hostile")),
    Part("drain", "a drained map while its server is killed 200 times",
         ("-m", "pytest", "-q", "tests/kernel/test_draining.py", "-k", "killed"), {"BPF_EXPORTER_KILLS": "200"}),
    Part("reloads", "500 reloads while it is scraped and counts without a pause",
         ("-m", "pytest", "-q", "-s", "tests/kernel/test_reload.py", "-k", "under_load"),
         {"BPF_EXPORTER_RELOADS": "500"}),
    Part("kills", "server and supervisor as units, killed 200 times at random moments under load, on Debian 12 and 13",
         ("-m", "pytest", "-q", "-s", "tests/e2e/test_systemd.py", "-k", "random"),
         {"BPF_EXPORTER_UNIT_KILLS": "200"}),
    Part("attacks", "a thousand slow clients, oversized requests and a flood, for a minute each",
         ("-m", "pytest", "-q", "-s", "tests/e2e/test_attacks.py"), {"BPF_EXPORTER_ATTACK_SECONDS": "60"}),
    Part("requests", "100,000 mutated and pipelined requests on kept connections, each answered with its own answer",
         ("-m", "pytest", "-q", "-s", "tests/unit/web/test_fuzz.py"), {"BPF_EXPORTER_FUZZ_REQUESTS": "100000"}),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, metavar="NAME,...")
    chosen = parser.parse_args().only
    if unknown := set(chosen) - set(names):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    lines: list[tuple[str, ...]] = [("part", "what", "result", "seconds")]
    failures: list[str] = []
    for part in PARTS:
        if part.name not in chosen:
            continue
        print(f"{part.name}: {part.shows}", flush=True)
        began = time.monotonic()
        done = subprocess.run([sys.executable, *part.arguments], cwd=CHECKOUT, text=True, check=False,
                              env={**os.environ, **part.environment},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        print(done.stdout, flush=True)
        if done.returncode:
            last = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
            failures.append(f"{part.name}: exit code {done.returncode}\n{last}")
        result = "FAILED" if done.returncode else "held"
        lines.append((part.name, part.shows, result, f"{time.monotonic() - began:.0f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if failures:
        sys.exit("\n" + "\n\n".join(failures))


if __name__ == "__main__":
    main()
