"""Cgroups (v2) of a test's own, and a child process that does one thing inside."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import in_child


def root() -> Path:
    """/sys/fs/cgroup, or /sys/fs/cgroup/unified beside version 1."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")


@contextmanager
def cgroup(name: str, depth: int = 1, controller: str = "") -> Iterator[Path]:
    """A directory `depth` levels below the root, gone at the end; with a controller if the tree has it to give."""
    made: list[Path] = []
    at = root()
    try:
        for level in range(depth):
            if controller:
                (at / "cgroup.subtree_control").write_text(f"+{controller}")
            at = at / f"{name}-{secrets.token_hex(4)}-{level}"
            at.mkdir()
            made.append(at)
        yield at
    finally:
        for directory in reversed(made):
            directory.rmdir()


def path(directory: Path) -> str:
    """As the decoder `cgroup` spells it."""
    return "/" + str(directory.relative_to(root()))


def call(directory: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` in a child process inside the cgroup; its result, which has to be JSON."""

    def work() -> str:
        (directory / "cgroup.procs").write_text(str(os.getpid()))
        return json.dumps(function(*arguments))

    return json.loads(in_child(work))
