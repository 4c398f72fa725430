"""The project as an administrator gets it: its wheel, with the wheels of what it depends on, for Debian's Pythons."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.e2e.queries import ROOT

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}  # of Debian 12 and 13
# What the wheel is built from; everything else in the tree (a venv, caches) stays out of the copy.
SOURCES = ("exporter", "programs", "pyproject.toml", "README.md", "LICENSE")


def dependencies(cache: Path, suite: str = "bookworm") -> Path:
    """Return a directory in `cache` with the wheels of hatchling and all dependencies, as constraints.txt pins them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    constraints = ROOT / "constraints.txt"
    mark = hashlib.sha256("\n".join([PYTHONS[suite], *wanted, constraints.read_text()]).encode()).hexdigest()[:12]
    directory = cache / f"wheels-{mark}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            partial = directory.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _pip("download", "--quiet", "--only-binary=:all:", f"--python-version={PYTHONS[suite]}",
                 "-c", str(constraints), "-d", str(partial), *wanted)  # fmt: skip
            partial.rename(directory)
    return directory


def project(dependencies: Path, scratch: Path) -> Path:
    """Build the wheel of the project in `scratch` without the network, and return its path."""
    source, out = scratch / "source", scratch / "wheel"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            source.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    _pip("wheel", "--quiet", "--no-deps", "--no-index", "--find-links", str(dependencies), "-w", str(out), str(source))
    (wheel,) = out.glob("*.whl")
    return wheel


def _pip(*arguments: str) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], env=environment, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise AssertionError(f"pip {arguments[0]}: exit code {done.returncode}\n{done.stderr}")
