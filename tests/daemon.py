"""A real exporter for tests: `bpf-exporter run` as a process of its own, with a port, a cache and a log."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import answers, until

CACHE = Path(os.environ.get("BPF_EXPORTER_TEST_CACHE", Path.home() / ".cache/bpf-exporter-tests"))
ROOT = Path(__file__).resolve().parent.parent

_reserved: list[socket.socket] = []


@dataclass
class Daemon:
    """A running `bpf-exporter run`."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @cached_property
    def port(self) -> int:
        """Return the port that the log names; the exporter listens before it loads. AssertionError if it ends."""

        def said() -> re.Match[str] | None:
            assert self.process.poll() is None, f"exporter ended with {self.process.returncode}:\n{self.log}"
            return re.search(r"event=listening url=https?://127\.0\.0\.1:(\d+)/", self.log)

        found = until(said, lambda: f"exporter does not listen:\n{self.log}", 120)
        assert found
        return int(found[1])

    def get(self, path: str = "/metrics", timeout: float = 30, **headers: str) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body: bytes = answer.read()
        return body.decode()

    def samples(self, path: str = "/metrics") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return every sample of a page by name and label set."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get(path))
            for sample in family.samples
        }

    def value(self, name: str, path: str = "/metrics", **labels: str) -> float:
        """Return the sum of the samples of this name that have these labels; 0 if there is none."""
        wanted = set(labels.items())
        return sum(v for (n, have), v in self.samples(path).items() if n == name and wanted <= have)

    def state(self, program: str) -> str:
        """Return the state of a program, as the metrics have it."""
        return next(
            dict(labels)["state"]
            for (name, labels), value in self.samples().items()
            if name == "bpf_exporter_program_state" and value and ("program", program) in labels
        )

    def wait_ready(self, timeout: float = 120) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"exporter ended with {self.process.returncode}:\n{self.log}"
            return answers(f"http://127.0.0.1:{self.port}/-/ready")

        until(is_ready, lambda: f"exporter not ready:\n{self.log}", timeout)

    def server_pid(self) -> int:
        """Return the process id of the server: the last one in the log."""
        pids = re.findall(r"server runs.*?pid=(\d+)", self.log)
        return int(pids[-1])

    def stop(self, timeout: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def free_port() -> int:
    """Return a port of 127.0.0.1 that refuses connections until a process of the test listens on it.

    This process binds a socket to the port and does not listen. bind(2) accepts a second socket, as both have
    SO_REUSEADDR, and the kernel chooses such a port neither for a bind to port 0 nor for a connection.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _reserved.append(holder)
    port: int = holder.getsockname()[1]
    return port


@contextmanager
def running(
    config: Path,
    directory: Path,
    *arguments: str,
    cache: Path | None = None,
    environment: dict[str, str] | None = None,
    python: Sequence[str] = (sys.executable,),
) -> Iterator[Daemon]:
    """Start an exporter on loopback, and end it after the block.

    directory  for its log and state
    python     the command that runs it
    """
    log_path = directory / "exporter.log"
    command = [
        *(*python, "-m", "exporter", "run"),
        *("--config.file", str(config), "--config.trust-owner", str(ROOT.stat().st_uid)),
        *("--web.listen-address", "127.0.0.1:0"),
        *("--cache.dir", str(cache or CACHE / "artifacts")),
        *("--state.dir", str(directory / "state")),
        *arguments,
    ]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
    daemon = Daemon(process, log_path)
    try:
        yield daemon
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
