"""What a scrape costs: a per-CPU hash with 16-byte keys, 4 labels and N series, read, rendered and compressed.

    benchmarks/scrape.py [--sizes 1000,10000,100000] [--repeats 5] [--peer OUTDIR]

Ours beside `prometheus_client.generate_latest` on the same samples (which has the map read for it, and no decoding)
and, with --peer, ebpf_exporter as peer/build.sh built it in OUTDIR. Needs root. Each figure is the best of the
repeats, in one run on one machine; compare the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from exporter.collecting import exposition
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.table import open_tables
from exporter.config import model
from exporter.decoders import Names
from exporter.kernel import bpf, cpus
from exporter.program import Map, Member, Program, State, Type

U32, U64 = Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type(
    "struct", "key_t", 16, members=tuple(Member(n, 32 * i, U32) for i, n in enumerate(("pid", "port", "ip", "op")))
)
SPEC = model.Program(
    name="scale",
    variants=[],
    source=Path("scale.c"),
    text="",
    metrics=[
        model.Metric(
            name="scale_total",
            type="counter",
            help="x",
            map="scale_total",
            max_series=1_000_000,
            labels=[
                model.Label(name="pid", field="pid"),
                model.Label(name="port", field="port"),
                model.Label(name="ip", field="ip", decode=[model.Decode(name="inet")]),
                model.Label(name="op", field="op"),
            ],
        )
    ],
)


@contextmanager
def filled(size: int) -> Iterator[tuple[Map, int]]:
    """A map of `size` entries with random values on each CPU."""
    map_ = Map("scale_total", bpf.BPF_MAP_TYPE_PERCPU_HASH, 16, 8, size * 2, key=KEY, value=U64)
    fd = bpf.map_create(map_.type, 16, 8, map_.max_entries, name="scale_total")
    try:
        values = np.random.default_rng(1).integers(0, 2**30, (size, cpus.possible()), dtype=np.uint64)
        for index in range(size):
            bpf.map_update(fd, struct.pack("4I", index + 1, 443, 0x0A000001, 7), values[index].tobytes())
        yield map_, fd
    finally:
        os.close(fd)


def best(repeats: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


class Reference:
    """The same samples for prometheus_client: objects made anew at every scrape, as its custom collectors do."""

    def __init__(self, family: exposition.Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        metric = CounterMetricFamily("scale", "x", labels=self._family.series.names)
        for texts, value in zip(self._family.series.sets, self._family.values.tolist(), strict=True):
            metric.add_metric(texts, value)
        yield metric


def ours(size: int, repeats: int) -> dict[str, float]:
    """Seconds by step."""
    with filled(size) as (map_, fd):
        program = Program("scale", State.RUNNING, maps=(map_,))
        collector = ProgramCollector(
            program,
            SPEC,
            open_tables(program, {"scale_total": fd}, cpus.possible()),
            Names.open(),
            possible=cpus.possible_numbers(),
            online=cpus.online,
        )
        start = time.perf_counter()
        families = collector.collect()
        page = exposition.render(families, openmetrics=False)
        first = time.perf_counter() - start
        assert page.count(b"\n") == size + 2
        found = {
            "first scrape": first,
            "read and reduce": best(repeats, collector.collect),
            "render": best(repeats, lambda: exposition.render(families, openmetrics=False)),
            "gzip": best(repeats, lambda: exposition.compress(page)),
            "scrape": best(repeats, lambda: exposition.render(collector.collect(), openmetrics=False)),
            "scrape, gzip": best(
                repeats, lambda: exposition.compress(exposition.render(collector.collect(), openmetrics=False))
            ),
        }
        index = 0

        def churn() -> None:
            """One new key: label text is made again."""
            nonlocal index
            index += 1
            bpf.map_update(fd, struct.pack("4I", index, 80, 0x0A000001, 7), bytes(8 * cpus.possible()))
            exposition.render(collector.collect(), openmetrics=False)

        found["scrape, a new key each time"] = best(repeats, churn)
        reference = Reference(families[0])
        found["prometheus_client.generate_latest"] = best(min(repeats, 3), lambda: generate_latest(reference))
    return found


def peer(directory: Path, size: int, repeats: int) -> dict[str, float]:
    """Seconds of whole scrapes over HTTP, by the measure.sh that $PEER_MEASURE names."""
    measure = os.environ.get("PEER_MEASURE", "../shared/peer/measure.sh")
    text = subprocess.run(
        [measure, directory, "counter", str(size), str(repeats)], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[float]] = {}
    for kind, seconds in re.findall(r"peer counter \d+ (plain|gzip) ([\d.]+) s", text):
        found.setdefault(kind, []).append(float(seconds))
    return {"ebpf_exporter scrape": min(found["plain"]), "ebpf_exporter scrape, gzip": min(found["gzip"])}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", default="1000,10000,100000", help="numbers of series (%(default)s)")
    arguments.add_argument("--repeats", type=int, default=5, help="runs of each, the best counts (%(default)s)")
    arguments.add_argument("--peer", type=Path, help="OUTDIR of peer/build.sh")
    chosen = arguments.parse_args()
    for size in map(int, chosen.sizes.split(",")):
        times = ours(size, chosen.repeats)
        if chosen.peer:
            times |= peer(chosen.peer, size, chosen.repeats)
        print(f"{size} series")
        for step, seconds in times.items():
            ratio = seconds / times["scrape"]
            print(f"  {step:36} {seconds * 1000:10.2f} ms  {ratio:8.2f} x our scrape")


if __name__ == "__main__":
    main()
