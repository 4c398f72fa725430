"""A program of our own to attach to (workloads/shop.c), compiled for the test, that does what it is told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("workloads") / "shop.c"


def build(directory: Path, name: str = "shop", *flags: str) -> Path:
    """The program, of clang-like optimisation and with symbols unless `flags` say otherwise."""
    path = directory / name
    subprocess.run(["gcc", "-O2", *flags, "-o", path, SOURCE], check=True, capture_output=True, text=True)
    return path


class Shop:
    """A running one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, line: str) -> str:
        """What it answers to one line."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def running(path: Path) -> Iterator[Shop]:
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Shop(process)
        assert process.stdin
        process.stdin.close()
        process.wait(10)
