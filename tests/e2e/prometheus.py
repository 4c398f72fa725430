"""Debian's Prometheus on loopback, and questions to its HTTP API."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.daemon import free_port
from tests.waiting import answers, until

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Prometheus:
    """A running server. Questions are asked over its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/)."""

    port: int

    def api(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[tuple[Labels, float]]:
        """Return the instant vector of `expr`: labels and value of each series."""
        data = self.api("query", query=expr)
        assert data["resultType"] == "vector", expr
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def numbers(self, expr: str) -> list[float]:
        """Return the values of `expr` without NaN, which is a quantile of nothing."""
        return [value for _, value in self.query(expr) if not math.isnan(value)]

    def firing(self, alert: str) -> list[Labels]:
        """Return the labels of each instance of the alert that is firing now."""
        return [labels for labels, _ in self.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')]


@contextlib.contextmanager
def running(directory: Path, jobs: Sequence[Mapping[str, Any]], rules: Sequence[Path]) -> Iterator[Prometheus]:
    """Run a Prometheus with `jobs` (entries of scrape_configs) and `rules` every second; it writes to `directory`."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": list(jobs),
    }
    file, log = directory / "prometheus.yaml", directory / "prometheus.log"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        *("prometheus", f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=directory)
    try:
        _wait_until_ready(process, port, log)
        yield Prometheus(port)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return answers(f"http://127.0.0.1:{port}/-/ready")

    until(is_ready, log.read_text)
