"""A running exporter observed from outside: scraped as Prometheus does, its memory and descriptors measured."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import daemon

SCRAPE_TIMEOUT = 10.0  # seconds, Prometheus' default
IMPATIENT = 1.0  # seconds that every other scrape gives as its timeout
BETWEEN_SCRAPES = 0.6  # seconds; within 0.5 s they share one collection


@dataclass
class Scrapes:
    """The results of scrapes: seconds of each answer, and errors. `impatient`: of scrapes with a timeout of a
    second."""

    seconds: list[float] = field(default_factory=list)
    impatient: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def scraping(exporter: daemon.Daemon) -> Iterator[Scrapes]:
    """Scrape as Prometheus does until the block ends."""
    found, over = Scrapes(), threading.Event()

    def scrape() -> None:
        while not over.wait(BETWEEN_SCRAPES):
            patient = len(found.seconds) <= len(found.impatient)
            began = time.monotonic()
            try:
                get(exporter, SCRAPE_TIMEOUT if patient else IMPATIENT)
                (found.seconds if patient else found.impatient).append(time.monotonic() - began)
            except OSError as error:
                found.failures.append(str(error))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def get(exporter: daemon.Daemon, timeout: float = SCRAPE_TIMEOUT) -> bytes:
    """Return the page of a scrape that gives so many seconds as its timeout."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{exporter.port}/metrics",
        headers={"Accept-Encoding": "gzip", "X-Prometheus-Scrape-Timeout-Seconds": str(timeout)},
    )
    with urllib.request.urlopen(request, timeout=SCRAPE_TIMEOUT) as answer:
        body: bytes = answer.read()
    return body


def memory(exporter: daemon.Daemon) -> float:
    """Return the MiB of all roles after some quiet scrapes: anonymous memory, because files are shared with others."""
    for _ in range(3):
        time.sleep(BETWEEN_SCRAPES)
        get(exporter)
        exporter.get()
    return sum(map(_anonymous, roles(exporter)))


def descriptors(exporter: daemon.Daemon) -> int:
    """Return the number of open descriptors of all roles."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in roles(exporter))


def roles(exporter: daemon.Daemon) -> list[int]:
    """Return the process ids of the supervisor and its children."""
    supervisor = exporter.process.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [supervisor, *map(int, children)]


def _anonymous(pid: int) -> float:
    """Return Pss_Anon of /proc/PID/smaps_rollup (5.9) in MiB: pages shared by fork are divided among the roles."""
    found = re.search(r"^Pss_Anon: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024
