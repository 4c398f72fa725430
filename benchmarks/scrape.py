"""The cost of a scrape over loopback, beside ebpf_exporter and the floor: the kernel's own batch copy of the map plus
writing the page's bytes once.

    python -m benchmarks.scrape [--sizes 1000,...] [--repeats 7] [--peer OUTDIR] [--json FILE]

A per-CPU hash with 16-byte keys, 4 labels and N series, plain and gzip; with every value higher each time; while 1 %
and 100 % of the keys change; histograms of 5,000 label sets x 28 buckets; 128 possible CPUs simulated in the buffers.
OUTDIR is the one given to peer/build.sh. Peer and ours are scraped in turns, so that both meet the same disturbances,
and the best of the repeats counts. The connection is kept, as Prometheus keeps it. Needs root.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import peer as peer_
from benchmarks import rows
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.table import Entries, Table
from exporter.collecting.text import exposition
from exporter.config import load
from exporter.decoders import Names
from exporter.kernel import bpf, cpus
from exporter.program import Map, Member, Program, State, Type
from exporter.spec import ProgramSpec

COUNTER = """
limits: {series: 10000000}
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
        max_series: %d
        labels:
          - {name: pid, field: pid}
          - {name: port, field: port}
          - {name: ip, field: ip, decode: [inet]}
          - {name: op, field: op}
"""
HISTOGRAM = """
programs:
  - name: hist
    code: |
      struct key_t { u32 pid; u32 op; };
      struct value_t { u64 slots[28]; u64 sum; };
      BPF_TABLE("percpu_hash", struct key_t, struct value_t, lat_seconds, MAX_ENTRIES);
      int on_rename(struct bpf_raw_tracepoint_args *ctx)
      {
          struct key_t key = {};
          struct value_t *value = lat_seconds.lookup(&key);

          if (value)
              value->slots[0]++;
          return 0;
      }
    defines: {MAX_ENTRIES: %d}
    attach: [{raw_tracepoint: task_rename, function: on_rename}]
    metrics:
      - name: lat_seconds
        type: histogram
        help: x
        map: lat_seconds
        scale: 1.0e-6
        max_series: 100000
"""
SETS, BUCKETS = 5000, 28  # of the histogram
SHARED = 0.55  # seconds between scrapes: those within half a second share one collection
_PATIENCE = struct.pack("ll", 120, 0)  # struct timeval


_ENDS = b"0\r\n\r\n"  # of an answer in chunks
# The other headers that Prometheus sends.
PROMETHEUS = (
    b"Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1\r\n"
    b"User-Agent: Prometheus/2.42.0\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n"
)
U32, U64 = Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type(
    "struct", "key_t", 16, members=tuple(Member(n, 32 * i, U32) for i, n in enumerate(("pid", "port", "ip", "op")))
)


# --- maps ---


def counter_keys(first: int, count: int) -> np.ndarray:
    """Return (count, 16) raw keys, which differ in their pid."""
    keys = np.empty((count, 4), np.uint32)
    keys[:, 0], keys[:, 1], keys[:, 2], keys[:, 3] = np.arange(first, first + count), 443, 0x0A000001, 7
    return keys.view(np.uint8)


def histogram_keys(first: int, count: int) -> np.ndarray:
    keys = np.empty((count, 2), np.uint32)
    keys[:, 0], keys[:, 1] = np.arange(first, first + count), 1
    return keys.view(np.uint8)


def slot_keys(count: int) -> np.ndarray:
    """Return keys for the peer, which has the bucket, 64 bits, in the key."""
    keys = np.zeros((count, 4), np.uint32)
    keys[:, 0], keys[:, 1], keys[:, 2] = np.arange(count) // BUCKETS, 1, np.arange(count) % BUCKETS
    return keys.view(np.uint8)


def fill(fd: int, keys: np.ndarray, numbers: int = 1, more: int = 0) -> None:
    """Insert an entry for each key, with `numbers` random numbers for each CPU, the same each time but for `more`."""
    values = np.random.default_rng(1).integers(0, 2**30, (len(keys), cpus.possible() * numbers), dtype=np.uint64)
    values += np.uint64(more)
    for key, value in zip(keys, values, strict=True):
        bpf.map_update(fd, key.tobytes(), value.tobytes())


class Keys:
    """The keys of a filled counter map. A part of them can be replaced by new ones."""

    def __init__(self, fd: int, count: int) -> None:
        self._fd, self._first, self._next = fd, 1, count + 1

    def replace(self, count: int) -> None:
        for key in counter_keys(self._first, count):
            bpf.map_delete(self._fd, key.tobytes())
        fill(self._fd, counter_keys(self._next, count))
        self._first, self._next = self._first + count, self._next + count


# --- exporters and scrapes ---


@dataclass(frozen=True, slots=True)
class Exporter:
    """A running exporter: its scraper, its filled map and its processes."""

    client: Client
    fd: int
    processes: Sequence[int]


class Client:
    """A scraper for one thread. It does little itself, because the exporters' time is measured: a fresh buffer and
    getaddrinfo(3) alone are 0.16 ms."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._buffer = bytearray(1 << 20)
        self._connection: socket.socket | None = None

    def ask(self, path: bytes = b"/metrics", encoding: bytes = b"identity", headers: bytes = b"") -> tuple[int, int]:
        """Return the status and the number of bytes of an answer."""
        if self._connection is None:
            self._connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
            self._connection.connect(("127.0.0.1", self.port))
        lines = b"GET %s HTTP/1.1\r\nHost: x\r\nAccept-Encoding: %s\r\n%s\r\n"
        self._connection.sendall(lines % (path, encoding, headers))
        buffer = self._buffer
        size = self._connection.recv_into(buffer)
        end = buffer.find(b"\r\n\r\n", 0, size) + 4
        head = bytes(buffer[:end])
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if length:
            while size < end + int(length):
                size += self._more()
        else:
            last = bytes(buffer[max(end, size - len(_ENDS)) : size])
            while last != _ENDS:
                got = self._more()
                last = (last + bytes(buffer[max(0, got - len(_ENDS)) : got]))[-len(_ENDS) :]
                size += got
        return int(head[9:12]), size

    def _more(self) -> int:
        assert self._connection is not None
        if not (got := self._connection.recv_into(self._buffer)):
            raise ConnectionResetError("the answer ends early")
        return got

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def ours(config: str, directory: Path) -> Iterator[Exporter]:
    """Run the daemon, with an empty map."""
    path = directory / "config.yaml"
    path.write_text(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = "lat_seconds" if "lat_seconds" in config else "scale_total"
    before = peer_.map_ids(name)
    command = [sys.executable, "-m", "exporter", "run", "--config.file", str(path), "--cache.dir", str(directory)]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen([*command, "--web.listen-address", f"127.0.0.1:{port}"], stderr=log, stdout=log) as process,
    ):
        try:
            client = Client(port)
            await_answer(client, b"/-/ready", process, directory / "log")
            (map_id,) = peer_.map_ids(name) - before
            fd = bpf.map_fd_by_id(map_id)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield Exporter(client, fd, [process.pid, *map(int, children)])
            os.close(fd)
        finally:
            process.terminate()


@contextmanager
def the_peer(build: Path, shape: peer_.Shape, entries: int, directory: Path) -> Iterator[Exporter]:
    """Run ebpf_exporter on a map of its own, empty."""
    with peer_.running(build, shape, entries, directory) as (port, fd, pid):
        yield Exporter(Client(port), fd, [pid])


def await_answer(client: Client, path: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"exit {process.returncode}: {log.read_text()}")
        try:
            if client.ask(path)[0] == 200:
                return
        except ConnectionError:
            client.close()
        time.sleep(0.1)
    raise TimeoutError(f"{path.decode()}: no answer")


def scrape(exporter: Exporter, encoding: bytes = b"identity", headers: bytes = b"", *, fresh: bool = False) -> float:
    """Return the seconds of a scrape that reads the maps. `fresh`: on a new connection."""
    time.sleep(SHARED)
    if fresh:
        exporter.client.close()
    start = time.perf_counter()
    assert exporter.client.ask(encoding=encoding, headers=headers)[0] == 200
    return time.perf_counter() - start


def in_turns(repeats: int, *works: Callable[[], float] | None) -> list[float]:
    """Return the best time of each, measured in turns; inf for one that is None."""
    best = [math.inf] * len(works)
    for _ in range(repeats):
        for place, work in enumerate(works):
            if work is not None:
                best[place] = min(best[place], work())
    return best


def floor(table: Table, page: bytes) -> Callable[[], float]:
    """Return the measure of the floor: read the map and write so many bytes. It pauses as long as a scrape, which
    leaves as little of the map in the CPU's caches."""

    def measure() -> float:
        time.sleep(SHARED)
        with socket.create_server(("127.0.0.1", 0)) as server:
            receiver = threading.Thread(target=_receive, args=(server.getsockname()[1],))
            receiver.start()
            connection, _ = server.accept()
            start = time.perf_counter()
            table.read_batches()  # the kernel's copy and nothing else
            connection.sendall(page)
            connection.close()
            receiver.join()
            return time.perf_counter() - start

    return measure


def _receive(port: int) -> None:
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as client:
        while client.recv_into(buffer):
            pass


def pss(processes: Sequence[int]) -> float:
    """Return the MB of several processes together."""
    total = 0
    for pid in processes:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1e3


def ms(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds * 1e3


def against_peer(what: str, mine: float, theirs: float, least: float, target: float | None) -> rows.Row:
    ratio = None if math.isinf(theirs) else mine / theirs
    return rows.Row(f"{what}; ours / peer", ms(mine), "ms", ms(theirs), ms(least), ratio, target)


def against_floor(what: str, mine: float, least: float, target: float | None) -> rows.Row:
    return rows.Row(f"{what}; ours / floor", ms(mine), "ms", floor=ms(least), ratio=mine / least, target=target)


def counters(size: int, repeats: int, build: Path | None) -> list[rows.Row]:
    # A millisecond every 15 s is nothing: few series need no more than half of the peer's time, many need a twentieth.
    target = {1000: 1 / 2, 10_000: 1 / 10}.get(size, 1 / 20)
    name = f"{size:,} series"
    with ExitStack() as stack:
        here, there = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        mine = stack.enter_context(ours(COUNTER % (2 * size, 4 * size), here))
        fill(mine.fd, counter_keys(1, size))
        peer = None
        if build is not None:
            peer = stack.enter_context(the_peer(build, peer_.COUNTER, 2 * size, there))
            fill(peer.fd, counter_keys(1, size))
        table = Table(mine.fd, Map("scale_total", bpf.BPF_MAP_TYPE_PERCPU_HASH, 16, 8, 2 * size), cpus.possible())
        found: list[rows.Row] = []
        for encoding in (b"identity", b"gzip"):
            bytes_ = mine.client.ask(encoding=encoding)[1]
            least = floor(table, bytes(bytes_))
            theirs_too = None if peer is None else partial(scrape, peer, encoding)
            mine_s, peer_s, least_s = in_turns(repeats, partial(scrape, mine, encoding), theirs_too, least)
            what = f"{name}, {'plain' if encoding == b'identity' else 'gzip'}"
            found.append(against_peer(what, mine_s, peer_s, least_s, target))
            found.append(against_floor(what, mine_s, least_s, 1.6 if size == 100_000 else None))
            if encoding == b"identity":
                unchanged, theirs = mine_s, peer_s
        three = min(_three(mine) for _ in range(repeats))
        found.append(rows.Row(f"{name}, three at once; all three / one", ms(three), "ms", ratio=three / unchanged))
        found += _memory(name, mine, peer, size)
        found += _otherwise(name, mine, peer, repeats)
        if size <= 100_000:
            times = []
            for step in range(1, 1 + repeats):
                fill(mine.fd, counter_keys(1, size), more=1000 * step)
                times.append(scrape(mine))
            found.append(against_peer(f"{name}, every value higher", min(times), theirs, math.inf, None))
            what = f"{name}, every value higher; ours / ours unchanged"
            found.append(rows.Row(what, ms(min(times)), "ms", ratio=min(times) / unchanged))
        keys = Keys(mine.fd, size)
        few_new = None if size <= 1000 else 2.0  # of a scrape of few series the fixed costs are most
        for part, most in ((100, few_new), (1, 6.0))[: 1 if size >= 1_000_000 else 2]:
            changed, same = [], []
            for _ in range(repeats if part > 1 else 2):
                keys.replace(size // part)
                changed.append(scrape(mine))
                same.append(scrape(mine))  # series that were shown stay, so the page has grown for both
            what = f"{name}, {100 // part} % of the keys replaced; ours / the next scrape, with the same keys"
            found.append(rows.Row(what, ms(min(changed)), "ms", ratio=min(changed) / min(same), target=most))
    return found


def _otherwise(name: str, mine: Exporter, peer: Exporter | None, repeats: int) -> list[rows.Row]:
    """Measure other kinds of scrapes."""

    def fresh(exporter: Exporter) -> float:
        return scrape(exporter, fresh=True)

    def prometheus(exporter: Exporter) -> float:
        return scrape(exporter, b"gzip", PROMETHEUS)

    found = []
    for how, measure in (("on a new connection each time", fresh), ("with all headers of Prometheus", prometheus)):
        mine_s, peer_s = in_turns(repeats, partial(measure, mine), None if peer is None else partial(measure, peer))
        found.append(against_peer(f"{name}, {how}", mine_s, peer_s, math.inf, None))
    return found


def _three(exporter: Exporter) -> float:
    time.sleep(SHARED)
    clients = [Client(exporter.client.port) for _ in range(3)]
    threads = [threading.Thread(target=client.ask) for client in clients]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - start
    for client in clients:
        client.close()
    return taken


def _memory(name: str, mine: Exporter, peer: Exporter | None, size: int) -> list[rows.Row]:
    little, theirs = pss(mine.processes), None if peer is None else pss(peer.processes)
    ratio = None if theirs is None else little / theirs
    found = [rows.Row(f"{name}, memory of all roles; ours / peer", little, "MB", theirs, ratio=ratio, target=1.0)]
    if size >= 1_000_000:
        found.append(
            rows.Row(f"{name}, memory of all roles; ours / 400 MB", little, "MB", None, 400, little / 400, 1.0)
        )
    return found


def histograms(repeats: int, build: Path | None) -> list[rows.Row]:
    with ExitStack() as stack:
        here, there = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        mine = stack.enter_context(ours(HISTOGRAM % (2 * SETS), here))
        fill(mine.fd, histogram_keys(1, SETS), BUCKETS + 1)
        peer = None
        if build is not None:
            peer = stack.enter_context(the_peer(build, peer_.HISTOGRAM, 2 * SETS * BUCKETS, there))
            fill(peer.fd, slot_keys(SETS * BUCKETS))
        mine_s, peer_s = in_turns(repeats, lambda: scrape(mine), None if peer is None else lambda: scrape(peer))
    what = f"histogram of {SETS:,} label sets x {BUCKETS} buckets"
    return [against_peer(what, mine_s, peer_s, math.inf, 1 / 20)]


class Simulated:
    """A map in buffers, as read on a host with so many possible CPUs. All values change between reads."""

    def __init__(self, size: int, possible: int) -> None:
        keys = counter_keys(1, size)
        self._values = np.random.default_rng(2).integers(0, 2**30, (size, possible, 1), dtype=np.uint64)
        self._entries = Entries(keys, self._values.view(np.uint8))

    def read(self) -> Entries:
        self._values[:, 0] += np.uint64(1)
        return self._entries


def above_the_copy(spec: ProgramSpec, size: int, possible: int, repeats: int) -> float:
    """Return the seconds of a scrape without the kernel's copy and without HTTP."""
    map_ = Map("scale_total", bpf.BPF_MAP_TYPE_PERCPU_HASH, 16, 8, 2 * size, key=KEY, value=U64)
    collector = ProgramCollector(
        Program("scale", State.RUNNING, maps=(map_,)),
        spec,
        {"scale_total": Simulated(size, possible)},
        Names.open(),
        possible=range(possible),
        online=lambda: range(possible),
    )

    def work() -> float:
        start = time.thread_time()  # the work waits for nothing, but others may have the CPU
        exposition.write(collector.collect())
        return time.thread_time() - start

    work()
    return min(work() for _ in range(repeats))


def scaling(repeats: int) -> list[rows.Row]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "scale.yaml"
        path.write_text(COUNTER % (2, 1_000_000))
        spec = load(path).config.programs[0]
    small = above_the_copy(spec, 10_000, 2, 3 * repeats) / 10_000
    large = above_the_copy(spec, 1_000_000, 2, repeats) / 1_000_000
    few = above_the_copy(spec, 100_000, 2, repeats)
    many = above_the_copy(spec, 100_000, 128, repeats)
    return [
        rows.Row(
            "all values changed, time of a series above the kernel's copy; at 1,000,000 / at 10,000",
            large * 1e9,
            "ns",
            floor=small * 1e9,
            ratio=large / small,
            target=1.5,
        ),
        rows.Row(
            "100,000 series of 128 possible CPUs, simulated, above the copy; ours / 64 times the time of 2 CPUs",
            many * 1e3,
            "ms",
            floor=few * 1e3,
            ratio=many / (64 * few),
            target=1.0,
        ),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", default="1000,10000,100000,1000000", help="numbers of series (%(default)s)")
    arguments.add_argument("--repeats", type=int, default=7, help="runs of each, the best counts (%(default)s)")
    arguments.add_argument("--peer", type=Path, help="OUTDIR of peer/build.sh")
    arguments.add_argument("--json", type=Path, help="leave the rows here")
    chosen = arguments.parse_args()
    build = chosen.peer.resolve() if chosen.peer else None
    found: list[rows.Row] = []
    for size in map(int, filter(None, chosen.sizes.split(","))):
        repeats = chosen.repeats if size < 1_000_000 else min(chosen.repeats, 3)
        found += counters(size, repeats, build)
    found += histograms(chosen.repeats, build)
    found += scaling(chosen.repeats)
    rows.leave(found, chosen.json)


if __name__ == "__main__":
    main()
