"""Proportional memory (PSS) of every role: while programs are compiled, when they run, and after many scrapes.

    python -m benchmarks.memory [--config config.example.yaml] [--scrapes 50]

Pages that roles share count for each by its part, so the figures may be added; RSS would count them twice. The first
start has an empty cache and compiles everything (loaders with LLVM, as many at once as memory allows), the second finds
all artifacts. Needs root.
"""

from __future__ import annotations

import argparse
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAUSE = 0.02  # seconds between two looks while programs load
DEADLINE = 300.0  # seconds for a start
MIB = 1024.0  # kB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CHECKOUT / "config.example.yaml")
    parser.add_argument("--scrapes", type=int, default=50)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        for start in ("cold cache", "warm cache"):
            _measure(start, chosen.config, Path(cache), chosen.scrapes)


def _measure(start: str, config: Path, cache: Path, scrapes: int) -> None:
    with exporter(config, cache) as (process, url):
        seconds, peak, loaders = _until_ready(process, url)
        print(f"{start}: ready after {seconds:.2f} s")
        print(f"  while loading    {_mib(peak)} together at most, {loaders} loaders at once")
        get(url + "/metrics")
        _show("  after 1 scrape  ", process.pid)
        for _ in range(scrapes - 1):
            get(url + "/metrics")
            time.sleep(0.01)
        _show(f"  after {scrapes} scrapes", process.pid)


def _show(when: str, supervisor: int) -> None:
    ours, server = (
        pss(supervisor),
        sum(map(pss, children(supervisor))),
    )  # loaders have ended: what is left is the server
    print(f"{when} {_mib(ours + server)} together: supervisor {_mib(ours)}, server {_mib(server)}")


def _until_ready(process: subprocess.Popen[bytes], url: str) -> tuple[float, float, int]:
    """Seconds until every program was tried; the most memory of all roles together meanwhile, in kB; the most children
    besides the server."""
    began = time.monotonic()
    peak, most = 0.0, 0
    while time.monotonic() - began < DEADLINE:
        if process.poll() is not None:
            sys.exit(f"the exporter ended with {process.returncode}: run it by hand with this configuration")
        roles = [process.pid, *children(process.pid)]
        peak, most = max(peak, sum(map(pss, roles))), max(most, len(roles) - 2)
        try:
            get(url + "/-/ready")
        except OSError:
            time.sleep(PAUSE)
            continue
        return time.monotonic() - began, peak, most
    sys.exit(f"the exporter was not ready after {DEADLINE:.0f} s")


def pss(pid: int) -> float:
    """kB of /proc/PID/smaps_rollup (4.14); 0 for a process that has ended."""
    try:
        found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0


def children(pid: int) -> list[int]:
    """Processes that this one has forked."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


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
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def _mib(kib: float) -> str:
    return f"{kib / MIB:.0f} MiB"


if __name__ == "__main__":
    main()
