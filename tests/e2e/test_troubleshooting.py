"""docs/troubleshooting.md: each of its commands is run against an exporter with those troubles, and says what it shows.

The page's host has the exporter on port 10435, its configuration in the working directory and its log in the journal.
`...` stands for what differs from host to host, and numbers are not compared.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from exporter.program import Reason
from tests.daemon import ROOT, Daemon, running
from tests.kernel.renames import rename

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(language, textwrap.dedent(text)) for _, language, text in FENCE.findall(PAGE)]
EXAMPLES = [
    (command.strip(), shown) for (language, command), (_, shown) in itertools.pairwise(BLOCKS) if language == "sh"
]
AFTER_THE_END = "journalctl"  # the only command that asks what a stop took


class Host:
    """Where the commands of the page are run."""

    def __init__(self, directory: Path, daemon: Daemon) -> None:
        self._directory = directory
        self._daemon = daemon
        tools = directory / "bin"
        tools.mkdir()
        (tools / "bpf-exporter").write_text(f'#!/bin/sh\nexec {sys.executable} -m exporter "$@"\n')
        (tools / "journalctl").write_text(f"#!/bin/sh\nexec cat {daemon.log_path}\n")
        for tool in tools.iterdir():
            tool.chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "C.UTF-8",
        }

    def run(self, command: str) -> str:
        """What it prints, as on a terminal: both streams."""
        line = command.replace("10435", str(self._daemon.port))
        done = subprocess.run(
            ["bash", "-c", line], cwd=self._directory, env=self._environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        return done.stdout


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Command -> what it printed."""
    directory = tmp_path_factory.mktemp("troubles")
    shutil.copy(ROOT / "tests/e2e/troubles.yaml", directory / "config.yaml")
    commands = [command for command, _ in EXAMPLES]
    with running(directory / "config.yaml", directory, "--log.format", "logfmt") as daemon:
        host = Host(directory, daemon)
        daemon.wait_ready()
        rename(23)
        found = {command: host.run(command) for command in commands if not command.startswith(AFTER_THE_END)}
        assert daemon.stop() == 0
        found |= {command: host.run(command) for command in commands if command.startswith(AFTER_THE_END)}
    return found


def pattern(line: str) -> re.Pattern[str]:
    """A line of the page: any number for a number, anything for "..."."""
    pieces = re.split(r"(\.\.\.|\d+(?:\.\d+)?)", line.strip())
    return re.compile(
        "".join(
            ".*" if piece == "..." else r"\d+(?:\.\d+)?" if piece[:1].isdigit() else re.escape(piece)
            for piece in pieces
        )
    )


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[re.sub(r"\W+", "-", c)[:60] for c, _ in EXAMPLES])
def test_command_prints_what_the_page_shows(printed: dict[str, str], command: str, shown: str) -> None:
    assert shown.strip(), "the page shows nothing"
    lines = [line.strip() for line in printed[command].splitlines()]
    missing = [line for line in shown.splitlines() if not any(pattern(line).fullmatch(have) for have in lines)]
    assert missing == [], printed[command]
    assert "Traceback" not in printed[command]


def test_every_reason_has_its_cure() -> None:
    table = PAGE.partition("| reason |")[2].partition("\n\n")[0]
    words = {word for row in re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
    assert words == {reason.value for reason in Reason} - {""}


def test_every_exit_code_is_there() -> None:
    table = PAGE.partition("| exit code |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\d) \|", table, re.MULTILINE) == ["1", "2", "3", "4", "5"]


def test_every_heading_is_reached_from_the_top() -> None:
    def anchor(heading: str) -> str:
        return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

    headings = {anchor(heading) for heading in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)}
    top = PAGE.partition("\n## ")[0]
    assert set(re.findall(r"\(#([\w-]+)\)", top)) == headings
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= headings
    assert "(docs/troubleshooting.md" in (ROOT / "README.md").read_text()
