"""What a scrape costs: a per-CPU hash with 16-byte keys, 4 labels and N series.

    benchmarks/scrape.py [--sizes 1000,10000,100000] [--repeats 5] [--peer OUTDIR]

Ours by step (read, render, gzip) and whole, through the daemon's HTTP server, with the proportional memory of all its
roles; beside `prometheus_client.generate_latest` on the same samples (which has the map read for it, and no decoding)
and, with --peer, ebpf_exporter as peer/build.sh built it in OUTDIR. Needs root. Each figure is the best of the repeats,
in one run on one machine; compare the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from exporter.collecting import exposition
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.opening import open_tables
from exporter.config import load, model
from exporter.decoders import Names
from exporter.kernel import bpf, cpus
from exporter.program import Map, Member, Program, State, Type
from exporter.web.page import Page

CONFIG = """
programs:
  - name: scale
    code: |
      struct key_t { u32 pid; u32 port; u32 ip; u32 op; };
      BPF_TABLE("percpu_hash", struct key_t, u64, scale_total, MAX_ENTRIES);
      int on_rename(struct bpf_raw_tracepoint_args *ctx)
      {
          struct key_t key = {};
          u64 one = 1;

          scale_total.update(&key, &one);
          return 0;
      }
    defines: {MAX_ENTRIES: %d}
    attach: [{raw_tracepoint: task_rename, function: on_rename}]
    metrics:
      - name: scale_total
        type: counter
        help: x
        map: scale_total
        max_series: 1000000
        labels:
          - {name: pid, field: pid}
          - {name: port, field: port}
          - {name: ip, field: ip, decode: [inet]}
          - {name: op, field: op}
"""
U32, U64 = Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type(
    "struct", "key_t", 16, members=tuple(Member(n, 32 * i, U32) for i, n in enumerate(("pid", "port", "ip", "op")))
)


def write_config(directory: Path, size: int) -> Path:
    path = directory / "scale.yaml"
    path.write_text(CONFIG % (size * 2))
    return path


def fill(fd: int, size: int) -> None:
    """`size` entries with random values on each CPU."""
    values = np.random.default_rng(1).integers(0, 2**30, (size, cpus.possible()), dtype=np.uint64)
    for index in range(size):
        bpf.map_update(fd, struct.pack("4I", index + 1, 443, 0x0A000001, 7), values[index].tobytes())


@contextmanager
def filled(size: int) -> Iterator[tuple[Map, int]]:
    """A map of the program's kind without the program."""
    map_ = Map("scale_total", bpf.BPF_MAP_TYPE_PERCPU_HASH, 16, 8, size * 2, key=KEY, value=U64)
    fd = bpf.map_create(map_.type, 16, 8, map_.max_entries, name="scale_total")
    try:
        fill(fd, size)
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


def steps(size: int, repeats: int, spec: model.Program) -> dict[str, float]:
    """Seconds of each step of ours, in this process."""
    with filled(size) as (map_, fd):
        program = Program("scale", State.RUNNING, maps=(map_,))
        collector = ProgramCollector(
            program,
            spec,
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
            "gzip": best(repeats, lambda: Page([page]).gzipped()),
            "scrape": best(repeats, lambda: exposition.render(collector.collect(), openmetrics=False)),
            "scrape, gzip": best(
                repeats, lambda: Page([exposition.render(collector.collect(), openmetrics=False)]).gzipped()
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


def daemon(config: Path, size: int, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of whole scrapes over HTTP, and MiB of proportional memory by role after them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before = set(map_ids())
    command = [sys.executable, "-m", "exporter", "run", "--config.file", str(config)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([*command, "--web.listen-address", f"127.0.0.1:{port}"], stderr=log, stdout=log) as process,
    ):
        try:
            for _ in range(600):
                if get(port, "/-/ready", "identity") == 200:
                    break
                time.sleep(0.1)
            (map_id,) = set(map_ids()) - before
            fd = bpf.map_fd_by_id(map_id)
            fill(fd, size)
            os.close(fd)
            times: dict[str, float] = {}
            for name, encoding in (("scrape over HTTP", "identity"), ("scrape over HTTP, gzip", "gzip")):
                for _ in range(repeats + 1):
                    time.sleep(0.6)  # scrapes within 0.5 s share one collection
                    start = time.perf_counter()
                    assert get(port, "/metrics", encoding) == 200
                    times[name] = min(times.get(name, math.inf), time.perf_counter() - start)
            memory = {"supervisor": pss(process.pid)}
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                memory["server"] = pss(int(child))
        finally:
            process.terminate()
    return times, memory


def map_ids() -> list[int]:
    """Ids of the maps that could be the daemon's."""
    listed = json.loads(subprocess.run(["bpftool", "map", "-j"], capture_output=True, check=True).stdout)
    return [entry["id"] for entry in listed if entry.get("name") == "scale_total"]


def get(port: int, path: str, encoding: str) -> int:
    """The status of a GET whose body was read whole; 0 if nobody listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": encoding})
        response = connection.getresponse()
        response.read()
    except ConnectionError:
        return 0
    finally:
        connection.close()
    return response.status


def pss(pid: int) -> float:
    found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else math.nan


def peer(directory: Path, size: int, repeats: int) -> dict[str, float]:
    """Seconds of whole scrapes over HTTP, by the measure.sh that $PEER_MEASURE names."""
    measure = os.environ.get("PEER_MEASURE", "../shared/peer/measure.sh")
    first = str(Path(sys.executable).parent)  # its fill.py wants numpy
    text = subprocess.run(
        [measure, str(directory.resolve()), "counter", str(size), str(repeats)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{first}:{os.environ['PATH']}"},
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
        with tempfile.TemporaryDirectory() as directory:
            config = write_config(Path(directory), size)
            times = steps(size, chosen.repeats, load(config).config.programs[0])
            whole, memory = daemon(config, size, chosen.repeats)
        times |= whole
        if chosen.peer:
            times |= peer(chosen.peer, size, chosen.repeats)
        print(f"{size} series")
        for step, seconds in times.items():
            ratio = seconds / times["scrape over HTTP"]
            print(f"  {step:36} {seconds * 1000:10.2f} ms  {ratio:8.2f} x our scrape over HTTP")
        roles = ", ".join(f"{role} {size:.0f} MiB" for role, size in memory.items())
        print(f"  proportional memory: {roles}, together {sum(memory.values()):.0f} MiB")


if __name__ == "__main__":
    main()
