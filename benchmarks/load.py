"""Sustained load: every event is counted, nothing grows, no scrape fails.

    python -m benchmarks.load [--seconds 600] [--json FILE]

Two processes fire an event as fast as they can, in bursts, while bundled programs run too and the exporter is scraped
all the time. These must hold, or the benchmark fails:

  - every event is counted, none twice
  - no scrape fails or takes as long as Prometheus' default timeout
  - all roles have as many descriptors as before, and as much memory as after the first tenth
  - the log has no error

Needs root. The short form is a test: tests/kernel/test_load.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from benchmarks import observing, rows
from tests import daemon
from tests.kernel import renames

BURST, PAUSE = 1000, 0.005  # events, and seconds between bursts: a CPU is half busy with them
WORKERS = 2
SLACK = 8.0  # MiB that pages of text, which differ from scrape to scrape, and malloc may take more
USED = ("tcp_rst", "tcp_sendmsg", "tcp_latency")


@dataclass(frozen=True)
class Outcome:
    """The outcome. events: fired and counted; memory: MiB early and late; descriptors before and after."""

    seconds: float
    events: tuple[int, int]
    memory: tuple[float, float]
    descriptors: tuple[int, int]
    errors: tuple[str, ...]  # lines of the log
    scrapes: observing.Scrapes

    @property
    def wrong(self) -> list[str]:
        """The conditions that do not hold."""
        fired, counted = self.events
        early, late = self.memory
        slowest = max(self.scrapes.seconds, default=observing.SCRAPE_TIMEOUT)
        checks = {
            f"{fired} events, {counted} counted": fired != counted or not fired,
            f"{len(self.scrapes.failures)} scrapes failed, first {self.scrapes.failures[:1]}": self.scrapes.failures,
            f"a scrape took {slowest:.1f} s": slowest >= observing.SCRAPE_TIMEOUT,
            f"descriptors went from {self.descriptors[0]} to {self.descriptors[1]}": (
                self.descriptors[1] > self.descriptors[0]
            ),
            f"memory went from {early:.1f} to {late:.1f} MiB": late - early > SLACK,
            f"the log has errors: {self.errors[:3]}": self.errors,
        }
        return [text for text, holds in checks.items() if holds]


def bear(exporter: daemon.Daemon, seconds: float) -> Outcome:
    """Make load for so long; the exporter counts renames by `tests/kernel/renames.py`."""
    began, before = time.monotonic(), observing.descriptors(exporter)
    context = multiprocessing.get_context("fork")
    over = context.Event()
    fired = [context.Value("Q", 0) for _ in range(WORKERS)]

    def fire(count: Synchronized[int]) -> None:
        while not over.is_set():
            renames.rename(BURST)
            count.value += BURST
            time.sleep(PAUSE)

    workers = [context.Process(target=fire, args=(count,)) for count in fired]
    with observing.scraping(exporter) as scrapes:
        for worker in workers:
            worker.start()
        try:
            time.sleep(seconds / 10)
            early = observing.memory(exporter)
            time.sleep(seconds * 9 / 10)
        finally:
            over.set()
            for worker in workers:
                worker.join()
        late = observing.memory(exporter)
    counted = sum(exporter.value("ebpf_renames_total", pid=str(worker.pid)) for worker in workers)
    return Outcome(
        time.monotonic() - began,
        (sum(count.value for count in fired), int(counted)),
        (early, late),
        (before, observing.descriptors(exporter)),
        tuple(re.findall(r"^.*\blevel=error\b.*$", exporter.log, re.MULTILINE)),
        scrapes,
    )


def write_config(directory: Path) -> Path:
    return renames.write_config(directory, "".join(f"  - use: {name}\n" for name in USED))


def table(outcome: Outcome) -> list[rows.Row]:
    fired, counted = outcome.events
    early, late = outcome.memory
    slowest, impatient = (max(times, default=0.0) for times in (outcome.scrapes.seconds, outcome.scrapes.impatient))
    what = f"{outcome.seconds:,.0f} s of load, {fired / outcome.seconds:,.0f} events/s"
    return [
        rows.Row(f"{what}: not counted, or counted twice", abs(fired - counted), "events",
                 ratio=abs(fired - counted) / fired, target=0),
        rows.Row(f"{what}: the slowest of {len(outcome.scrapes.seconds)} scrapes, of Prometheus' timeout", slowest, "s",
                 floor=observing.SCRAPE_TIMEOUT, ratio=slowest / observing.SCRAPE_TIMEOUT, target=1),
        rows.Row(f"{what}: the slowest of {len(outcome.scrapes.impatient)} scrapes that said they had 1 s", impatient,
                 "s", floor=observing.IMPATIENT, ratio=impatient / observing.IMPATIENT, target=1),
        rows.Row(f"{what}: memory that all roles gained after the first tenth", late - early, "MiB", floor=early,
                 ratio=(late - early) / SLACK, target=1),
        rows.Row(f"{what}: descriptors gained", outcome.descriptors[1] - outcome.descriptors[0], "descriptors",
                 floor=outcome.descriptors[0], ratio=float(outcome.descriptors[1] - outcome.descriptors[0]), target=0),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="(%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave the rows there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with daemon.running(write_config(directory), directory) as exporter:
            exporter.wait_ready()
            outcome = bear(exporter, chosen.seconds)
    found = table(outcome)
    rows.leave(found, chosen.json)
    if outcome.wrong:
        sys.exit("; ".join(outcome.wrong))


if __name__ == "__main__":
    main()
