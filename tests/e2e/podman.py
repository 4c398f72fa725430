"""Podman with a storage of its own, which goes away with everything that ran out of it.

What a machine may lack is worked around here and nowhere else: a registry (the base image is debootstrap's root), the
right to raise limits, and cgroups of version 2 alone, without which Debian's crun starts nothing; runc does.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUNTIME = "/usr/sbin/runc"


@dataclass(frozen=True)
class Podman:
    storage: Path

    def run(self, *arguments: str, cwd: Path | None = None, check: bool = True, timeout: float = 300) -> str:
        """Return what `podman ARGUMENTS` prints. AssertionError with the output if it fails."""
        command = [*self._command(), f"--runtime={RUNTIME}", *arguments]
        done = subprocess.run(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"podman {arguments[0]}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def image_of(self, root: Path, name: str) -> None:
        """Make an image of the files of `root`."""
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            command = [*self._command(), "import", "-", name]
            subprocess.run(command, stdin=tar.stdout, check=True, capture_output=True, timeout=300)
        assert tar.returncode == 0

    def _command(self) -> tuple[str, ...]:
        return "podman", f"--root={self.storage}/root", f"--runroot={self.storage}/run"


@contextlib.contextmanager
def podman() -> Iterator[Podman]:
    """Make a storage, and remove it with its containers at the end. Podman puts sockets below: its path is short."""
    storage = Path(tempfile.mkdtemp(prefix="bpfx-"))
    mine = Podman(storage)
    try:
        yield mine
    finally:
        mine.run("rm", "--all", "--force", "--time", "10", check=False)
        mine.run("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", "-q", storage / "root/overlay"], check=False)
        shutil.rmtree(storage)
        _remove_cgroups()


def _remove_cgroups() -> None:
    """What podman leaves: a group for all containers, and below it one for conmon, in each hierarchy."""
    for top in (*Path("/sys/fs/cgroup").glob("libpod_parent"), *Path("/sys/fs/cgroup").glob("*/libpod_parent")):
        for group in (*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top):
            with contextlib.suppress(OSError):  # somebody else's container is in it
                group.rmdir()


def limits() -> list[str]:
    """Options for limits below those here: raising them, as Podman does of its own, takes CAP_SYS_RESOURCE."""
    found = []
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        _, hard = resource.getrlimit(number)
        limit = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
        found.append(f"--ulimit={name}={limit}:{limit}")
    return found
