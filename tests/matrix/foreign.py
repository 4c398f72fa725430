"""A Debian 12 of another architecture as a directory: what a guest has for its root when it cannot have the machine's.

    foreign.root(ARM64, cache)  ->  the directory; packages unpacked, nothing of them ever run on this machine

Python's packages are the wheels of that architecture, by the versions of constraints.txt. The checkout itself is shared
with the guest beside this root (initramfs.py): it is Python and the same everywhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.matrix import apt
from tests.matrix.architecture import Architecture

CHECKOUT = Path(__file__).resolve().parents[2]
SUITES = ("bookworm", "bookworm-security")  # Debian 12
PYTHON = "3.11"  # of these suites
# What the checks run: Python, bcc for one native compile, a C compiler for the program that the checks attach to, and
# what makes the file systems whose operations are counted.
PACKAGES = (
    "base-passwd", "bash", "busybox-static", "coreutils", "dash", "e2fsprogs", "gcc", "grep", "iproute2", "kmod",
    "libc-bin", "libc6-dev", "mount", "netbase", "procps", "python3", "python3-bpfcc", "systemtap-sdt-dev",
    "util-linux", "xfsprogs",
)  # fmt: skip
MERGED = ("bin", "sbin", "lib")  # links into usr, as in every Debian 12
EMPTY = ("dev", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib", "var/tmp")


def root(architecture: Architecture, cache: Path) -> Path:
    """The directory in `cache`, filled if it is not there: a minute, 600 MB. AptError with the step that failed."""
    wanted = [*PACKAGES, *_requirements(), (CHECKOUT / "constraints.txt").read_text()]
    mark = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    name = f"debian-{architecture.debian}-"
    target = cache / f"{name}{mark}"
    with (cache / f"{name}lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            new = cache / f"{name}new"
            shutil.rmtree(new, ignore_errors=True)
            _unpack(apt.private(cache / "apt" / f"{name}root", SUITES, apt.mirrors(), architecture.debian), new)
            _install_wheels(new, architecture)
            _compile_bytecode(new)
            for old in cache.glob(f"{name}*[0-9a-f]"):
                shutil.rmtree(old)
            new.rename(target)
    return target


def _unpack(source: apt.Apt, into: Path) -> None:
    for name in MERGED:
        (into / "usr" / name).mkdir(parents=True)
        (into / name).symlink_to(f"usr/{name}")
    for name in EMPTY:
        (into / name).mkdir(parents=True)
    options = ("-y", "--download-only", "-o", "APT::Install-Recommends=false", "-o", "Dpkg::Use-Pty=0")
    source.run("apt-get", "-q", *options, "install", *PACKAGES)
    archives = source.directory / "cache" / "archives"
    for deb in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, into], check=True, capture_output=True, timeout=300)
        deb.unlink()
    # What the packages' scripts would have done that somebody here asks for: names of users, and /bin/sh.
    for name in ("passwd", "group"):
        shutil.copy(into / "usr/share/base-passwd" / f"{name}.master", into / "etc" / name)
    (into / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    if not (into / "bin/sh").exists():
        (into / "bin/sh").symlink_to("dash")


def _requirements() -> list[str]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    found: list[str] = project["project"]["dependencies"]
    return found


def _install_wheels(into: Path, architecture: Architecture) -> None:
    platforms = [f"--platform=manylinux{tag}_{architecture.machine}" for tag in ("2014", "_2_17", "_2_28", "_2_34")]
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-compile", "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms),
        *("-c", CHECKOUT / "constraints.txt", "--target", into / "usr/local/lib" / f"python{PYTHON}" / "dist-packages"),
        *_requirements(),
    )


def _compile_bytecode(into: Path) -> None:
    """Under emulation compiling is the greater part of an import. Bytecode is the same on every architecture."""
    libraries = [into / "usr/lib/python3", into / f"usr/lib/python{PYTHON}", into / "usr/local/lib" / f"python{PYTHON}"]
    # Files that are there to be refused (lib2to3's tests) make its exit code 1.
    _run(sys.executable, "-m", "compileall", "-q", "-s", into, *libraries, may_fail=True)


def _run(*command: str | os.PathLike[str], may_fail: bool = False) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    if done.returncode and not may_fail:
        last = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise apt.AptError(f"{' '.join(map(str, command[:4]))}: {last or f'exit code {done.returncode}'}")
