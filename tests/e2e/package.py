"""The Debian package, built from the tree, and the same with another version number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from exporter import __version__
from tests.e2e.queries import ROOT


def build(out: Path, *, compress: str = "-Znone") -> Path:
    """Build the package into `out`, without compression, and return its path."""
    environment = {**os.environ, "COMPRESS": compress}
    command = [str(ROOT / "deploy/build-deb"), sys.executable, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise AssertionError(f"build-deb: exit code {done.returncode}\n{done.stderr}")
    return Path(done.stdout.strip())


def renamed(package: Path, version: str, scratch: Path) -> Path:
    """Return a copy of a package in which its own version and that of the exporter are `version`."""
    tree = scratch / version
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True, timeout=300)
    changed = [tree / "DEBIAN/control", *tree.glob("usr/lib/bpf-exporter/lib/*/site-packages/exporter/__init__.py")]
    assert len(changed) == 3
    for path in changed:
        path.write_text(path.read_text().replace(__version__, version))
        assert version in path.read_text()  # one file for both Pythons: the second finds it changed
    made = scratch / f"bpf-exporter_{version}.deb"
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), str(made)]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    return made
