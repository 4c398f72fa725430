"""The README's commands, each run in a copy of the tree as a newcomer has it: no virtual environment, no cache."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import ROOT
from tests.waiting import answers, let_collection_expire, until

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
FENCES = [text for language, text in BLOCKS if language == "yaml"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks or would track."""
    there = tmp_path_factory.mktemp("readme") / "bpf-exporter"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, there / name)
    (there / "first.yaml").write_text(FENCES[0])
    return there


class Background:
    """A `make run` in a session of its own, as in a second terminal; its output is kept."""

    def __init__(self, command: str, checkout: Path, cache: Path) -> None:
        self._file = checkout / "output"
        with self._file.open("wb") as out:
            environment = {**os.environ, "CACHE": str(cache)}
            self.process = subprocess.Popen(
                ["bash", "-c", command], cwd=checkout, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env=environment,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._file.read_text()

    def wait_ready(self, port: int, seconds: float) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.output
            return answers(f"http://127.0.0.1:{port}/-/ready")

        until(is_ready, lambda: self.output, seconds)

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)  # what Ctrl-C does
            self.process.wait(15)


def commands() -> list[str]:
    return [line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line.strip()]


def traffic() -> None:
    """What a host in use has anyway: a connection refused, and so a reset, and requests that were answered."""
    with socket.socket() as refused:
        assert refused.connect_ex(("127.0.0.1", 1)) != 0
    let_collection_expire()


@pytest.fixture(scope="module")
def session(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, str]]]:
    """Every command in the README's order, with what it printed; a `make run` goes on until the next one."""
    printed: list[tuple[str, str]] = []
    running: Background | None = None
    cache = tmp_path_factory.mktemp("cache")
    cache.chmod(0o700)
    try:
        for command in commands():
            if command == "make test":  # it is what runs this test
                printed.append((command, ""))
            elif command.startswith("make run"):
                if running:
                    running.stop()
                running = Background(command, checkout, cache)
                address = re.search(r"LISTEN=\S*:(\d+)", command)
                running.wait_ready(int(address[1]) if address else 10435, 300)
                printed.append((command, running.output))
            else:
                traffic()
                done = subprocess.run(["bash", "-c", command], cwd=checkout, capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
                printed.append((command, done.stdout))
        yield printed
    finally:
        if running:
            running.stop()


def test_every_command_works_in_the_order_of_the_page(session: list[tuple[str, str]]) -> None:
    assert [command for command, _ in session] == commands()
    assert len(commands()) >= 5


def test_make_run_says_what_it_installs_and_what_it_loads(session: list[tuple[str, str]]) -> None:
    first = next(output for command, output in session if command == "make run")
    assert "installing Python packages" in first
    for program in ("tcp_rst", "tcp_sendmsg", "tcp_latency"):
        assert re.search(rf"program running.*\b{program}\b", first), first


def test_the_second_run_installs_nothing(session: list[tuple[str, str]]) -> None:
    second = next(output for command, output in session if command.startswith("make run "))
    assert "installing" not in second


def test_the_page_shows_metrics_that_exist(session: list[tuple[str, str]]) -> None:
    page = next(output for command, output in session if "localhost:10435" in command)
    example = next(text for language, text in BLOCKS if not language)
    for line in example.splitlines():
        name, labels = re.match(r"(\w+)\{(.*)\}", line).groups()  # type: ignore[union-attr]
        keys = sorted(re.findall(r'(\w+)="', labels))
        assert any(
            shown.startswith(name + "{") and sorted(re.findall(r'(\w+)="', shown)) == keys
            for shown in page.splitlines()
        ), (line, page)


def test_the_first_program_counts(session: list[tuple[str, str]]) -> None:
    shown = next(output for command, output in session if "execs" in command and "curl" in command)
    assert re.search(r'^ebpf_execs_total\{unit="[^"]+"\} \d+$', shown, re.MULTILINE), shown


@pytest.mark.parametrize("fence", FENCES)
def test_every_configuration_of_the_page_has_no_mistakes(fence: str, checkout: Path, session: object) -> None:
    path = checkout / "fence.yaml"
    path.write_text(fence)
    done = subprocess.run(
        [".venv/bin/bpf-exporter", "check", "--strict", str(path)], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_histogram_of_the_page_counts_sends(checkout: Path, session: object, tmp_path: Path) -> None:
    (checkout / "second.yaml").write_text(FENCES[1])
    running = Background("make run CONFIG=second.yaml LISTEN=127.0.0.1:10437", checkout, tmp_path / "cache")
    try:
        running.wait_ready(10437, 60)
        page = urllib.request.urlopen("http://127.0.0.1:10437/metrics").read().decode()
        assert 'ebpf_socket_send_size_bytes_bucket{le="1.0"}' in page, running.output
        let_collection_expire()
        page = urllib.request.urlopen("http://127.0.0.1:10437/metrics").read().decode()
        count = re.search(r"^ebpf_socket_send_size_bytes_count (\d+)$", page, re.MULTILINE)
        assert count is not None
        assert int(count[1]) > 0  # the answer to the first scrape was sent on a socket
    finally:
        running.stop()


def test_make_test_is_what_ci_runs() -> None:
    assert "exec make test" in (ROOT / ".ci/run").read_text()
    assert "make test" in commands()
