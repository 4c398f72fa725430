"""Proportional memory (PSS) of all roles: twelve programs, 100,000 series, and many scrapes of keys that change.

    python -m benchmarks.memory [--peer OUTDIR] [--churn SCRAPES] [--only-churn] [--json FILE]

PSS divides shared pages among the processes that share them, so the figures may be added; RSS would count them twice.
The first start has an empty cache and compiles everything (loaders with LLVM, as many at once as memory allows), later
ones find all artifacts. Series are entries that this script puts into a map of the daemon's. At the end it makes so
many collections and pages in its own process (--churn), and replaces 1 % of the keys between any two; --only-churn does
nothing else. Needs root.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks import peer, rows
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables
from exporter.collecting.text import exposition
from exporter.config import load
from exporter.decoders import Names
from exporter.kernel import bpf, cpus
from exporter.program import Map, Member, Program, State, Type

CHECKOUT = Path(__file__).resolve().parents[1]
# Programs whose series hardly depend on the traffic of the host.
PROGRAMS = ("biolatency", "cachestat", "kfree_skb", "oomkill", "runqlat", "softirq_latency", "syscalls",
            "tcp_retransmit", "tcp_rst", "tcp_sendmsg", "tcp_syn_backlog", "udp_drops")  # fmt: skip
SERIES = 1400  # lines of the page of those programs
PAUSE = 0.02  # seconds between two measurements while programs load
DEADLINE = 300.0  # seconds for a start
SHARED = 0.6  # seconds between scrapes, so that each of them reads the maps
MEGABYTE = 1e6
PROMISED = 49.0  # MB of all roles together with those programs
PROMISED_APART = 53.0  # MB of the same as two units, which share the pages of files alone
PROMISED_OF_PEER = 0.5  # of the peer's memory at 100,000 series

TEXT = """\
struct key_t { u32 pid; u32 port; u32 ip; u32 op; };
BPF_TABLE("percpu_hash", struct key_t, u64, filled, MAX_ENTRIES);

int on_rename(struct bpf_raw_tracepoint_args *ctx)
{
    struct key_t key = {};
    u64 one = 1;

    filled.update(&key, &one);
    return 0;
}
"""
KEY = struct.Struct("4I")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="OUTDIR of peer/build.sh")
    parser.add_argument("--churn", type=int, default=10_000, metavar="SCRAPES", help="(%(default)s)")
    parser.add_argument("--only-churn", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave the rows there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = [] if chosen.only_churn else _roles(Path(scratch), chosen.peer)
        found.append(churn(Path(scratch), chosen.churn))
    rows.leave(found, chosen.json)


def _roles(scratch: Path, built: Path | None) -> list[rows.Row]:
    twelve = write_config(scratch / "twelve.yaml", 2 * SERIES, PROGRAMS)
    many = write_config(scratch / "many.yaml", 200_000)
    _, peak = _measure(twelve, scratch / "cache", 0, 1)
    little, _ = _measure(twelve, scratch / "cache", SERIES, 20)
    apart = _measure_apart(twelve, scratch, SERIES, 20)
    much, _ = _measure(many, scratch / "cache", 100_000, 10)
    theirs = _peer(built, 100_000, 10, scratch / "peer") if built else None
    what = f"twelve bundled programs, {SERIES:,} series, 20 scrapes"
    return [
        rows.Row(f"{what}; target: of {PROMISED:.0f} MB", little, "MB", floor=PROMISED, ratio=little / PROMISED,
                 target=1.0),
        rows.Row(f"the same as two units; target: of {PROMISED_APART:.0f} MB", apart, "MB", floor=PROMISED_APART,
                 ratio=apart / PROMISED_APART, target=1.0),
        rows.Row("100,000 series, 10 scrapes", much, "MB", peer=theirs,
                 ratio=much / theirs if theirs else None, target=PROMISED_OF_PEER if theirs else None),
        rows.Row("while twelve programs are compiled, at most", peak, "MB"),
    ]  # fmt: skip


def write_config(path: Path, entries: int, names: tuple[str, ...] = ()) -> Path:
    """Write a configuration of these bundled programs, and of one whose map has so many entries and a series for
    each."""
    metric = {
        "name": "filled_total", "type": "counter", "help": "x", "map": "filled", "max_series": 1_000_000,
        "labels": [{"name": "pid", "field": "pid"}, {"name": "port", "field": "port"},
                   {"name": "ip", "field": "ip", "decode": ["inet"]}, {"name": "op", "field": "op"}],
    }  # fmt: skip
    source = path.with_suffix(".c")
    source.write_text(TEXT)
    filled = {
        "name": "filled", "source": str(source), "defines": {"MAX_ENTRIES": entries}, "metrics": [metric],
        "attach": [{"raw_tracepoint": "task_rename", "function": "on_rename"}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump({"programs": [*({"use": name} for name in names), filled]}))
    return path


def fill(fd: int, first: int, count: int) -> None:
    for number in range(first, first + count):
        bpf.map_update(fd, KEY.pack(number, 443, 0x0A000001, 7), struct.pack("Q", number) * cpus.possible())


def _measure(config: Path, cache: Path, series: int, scrapes: int) -> tuple[float, float]:
    """Return the MB of all roles after so many scrapes, and their maximum while programs were loaded."""
    with exporter(config, cache) as (process, url):
        peak = _until_ready(process, url)
        _scrape(process.pid, url, series, scrapes)
        return sum(map(pss, (process.pid, *children(process.pid)))), peak


def _scrape(holder: int, url: str, series: int, scrapes: int) -> None:
    """Scrape pages that have so many series, with entries added to the map that `holder` has open."""
    missing = series - _lines(get(url + "/metrics"))
    fd = _map_of(holder, "filled")
    fill(fd, 1, missing)
    os.close(fd)
    for _ in range(scrapes):
        time.sleep(SHARED)
        page = get(url + "/metrics")
    assert page.count(b"\nfilled_total{") >= missing, f"{page.count(b'filled_total{')} series of {missing}"


def _lines(page: bytes) -> int:
    return sum(not line.startswith(b"#") for line in page.splitlines())


def _measure_apart(config: Path, scratch: Path, series: int, scrapes: int) -> float:
    """Return the MB of a supervisor and a server started each by itself, as the two units of systemd are."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    python = [sys.executable, "-m", "exporter"]
    where = ["--supervisor.socket", str(scratch / "run/supervisor.sock"), "--user", "65534"]
    files = ["--config.file", str(config), "--config.trust-owner", str(CHECKOUT.stat().st_uid)]
    directories = ["--cache.dir", str(scratch / "cache"), "--state.dir", str(scratch / "state")]
    commands = [
        [*python, "supervise", *where, *files, *directories],
        [*python, "serve", *where, "--web.listen-address", address],
    ]
    roles = [subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.DEVNULL) for command in commands]
    try:
        _until_ready(roles[1], f"http://{address}")
        _scrape(roles[0].pid, f"http://{address}", series, scrapes)
        return sum(pss(role.pid) for role in roles)
    finally:
        for role in roles:
            role.terminate()
            role.wait(10)


def _map_of(pid: int, name: str) -> int:
    """Return a descriptor of the map of that name that a process has open."""
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        found = re.search(r"^map_id:\s*(\d+)$", info.read_text(), re.MULTILINE)
        if found:
            fd = bpf.map_fd_by_id(int(found[1]))
            if bpf.map_info(fd).name == name.encode():
                return fd
            os.close(fd)
    raise LookupError(f"no map {name}: did its program fail?")


def _until_ready(process: subprocess.Popen[bytes], url: str) -> float:
    """Wait until every program was tried, and return the maximum of all roles together meanwhile, in MB."""
    began, peak = time.monotonic(), 0.0
    while time.monotonic() - began < DEADLINE:
        if process.poll() is not None:
            sys.exit(f"the exporter ended with {process.returncode}: run it by hand with this configuration")
        peak = max(peak, sum(map(pss, (process.pid, *below(process.pid)))))
        try:
            get(url + "/-/ready")
        except OSError:
            time.sleep(PAUSE)
            continue
        return peak
    sys.exit(f"the exporter was not ready after {DEADLINE:.0f} s")


def churn(scratch: Path, scrapes: int, series: int = 1000) -> rows.Row:
    """Compare the memory of this process after all collections with that after the first tenth of them."""
    spec = load(write_config(scratch / "churn.yaml", 2 * series)).config.programs[0]
    metric = spec.metrics[0].model_copy(update={"max_series": series})
    spec = spec.model_copy(update={"metrics": [metric]})
    u32 = Type("int", "u32", 4)
    key = Type("struct", "key_t", 16, members=tuple(Member(n, 32 * i, u32) for i, n in enumerate(
        ("pid", "port", "ip", "op"))))  # fmt: skip
    map_ = Map("filled", bpf.BPF_MAP_TYPE_PERCPU_HASH, 16, 8, 2 * series, key=key, value=Type("int", "u64", 8))
    fd = bpf.map_create(map_.type, 16, 8, map_.max_entries, name="filled")
    program = Program("filled", State.RUNNING, maps=(map_,))
    collector = ProgramCollector(
        program, spec, open_tables(program, {"filled": fd}, cpus.possible()), Names.open(),
        possible=cpus.possible_numbers(), online=cpus.online,
    )  # fmt: skip
    fill(fd, 1, series)
    step = max(1, series // 100)
    settled = 0.0
    for number in range(scrapes):
        for gone in range(step):
            bpf.map_delete(fd, KEY.pack(1 + number * step + gone, 443, 0x0A000001, 7))
        fill(fd, 1 + series + number * step, step)
        exposition.render(collector.collect(), openmetrics=False)
        if number == max(scrapes // 10, 1) - 1:
            settled = _kept()
    os.close(fd)
    last = _kept()
    what = f"{scrapes:,} scrapes of {series:,} series, 1 % of the keys replaced each time; floor: after a tenth of them"
    return rows.Row(what, last, "MB", floor=settled, ratio=last / settled, target=1.1)


def _peer(build: Path, series: int, scrapes: int, directory: Path) -> float:
    """Return the MB of the peer after so many scrapes."""
    directory.mkdir()
    with peer.running(build.resolve(), peer.COUNTER, 2 * series, directory) as (port, fd, pid):
        fill(fd, 1, series)
        for _ in range(scrapes):
            get(f"http://127.0.0.1:{port}/metrics")
        return pss(pid)


def pss(pid: int) -> float:
    """Return the PSS of a process in MB."""
    return _rollup(pid, "Pss")


def _kept() -> float:
    """Return the MB of this process that are in no file: its share of files depends on what else runs."""
    return _rollup(os.getpid(), "Anonymous")


def _rollup(pid: int, field: str) -> float:
    """Return a field of /proc/PID/smaps_rollup (4.14) in MB; 0 for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"^{field}: +(\d+) kB", text, re.MULTILINE)
    return float(found[1]) * 1024 / MEGABYTE if found else 0.0


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def below(pid: int) -> list[int]:
    """Return all descendants of a process: the compiler is a child of its loader."""
    return [each for child in children(pid) for each in (child, *below(child))]


@contextmanager
def exporter(config: Path, cache: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    owner = str(CHECKOUT.stat().st_uid)
    command = [sys.executable, "-m", "exporter", "run", "--config.file", str(config), "--config.trust-owner", owner]
    options = ["--web.listen-address", address, "--cache.dir", str(cache)]
    process = subprocess.Popen([*command, *options], cwd=CHECKOUT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process, f"http://{address}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
    return body


if __name__ == "__main__":
    main()
