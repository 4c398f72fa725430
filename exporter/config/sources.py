"""The files of a configuration: their digest, which hosts with equal files share, and whether they have changed."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from pathlib import Path

from exporter.spec import Sources

MAX_BYTES = 4 << 20  # the largest config seen in the field has 200 kB

Fingerprint = tuple[str, str]  # as in Sources.files


def digest(sources: Sources) -> str:
    """Return the SHA-256 of the contents of all files in the order of reading, without their names and paths."""
    return hashlib.sha256("\n".join(content for content, _ in sources.files.values()).encode()).hexdigest()


def changed(sources: Sources) -> bool:
    """Return True if reading again would find another content, owner, mode or file. Takes a millisecond, no YAML."""
    return (
        any(os.path.isfile(path) for path in sources.absent)
        or any(matches(pattern) != before for pattern, before in sources.globs.items())
        or any(fingerprint(path) != before for path, before in sources.files.items())
    )


def matches(pattern: str) -> list[str]:
    """Return the names that a pattern of `include:` matches, sorted."""
    return sorted(glob.glob(pattern, recursive=True))


def fingerprint_of(data: bytes, status: os.stat_result) -> Fingerprint:
    return hashlib.sha256(data).hexdigest(), f"{status.st_uid}:{status.st_gid}:{stat.S_IMODE(status.st_mode):04o}"


def fingerprint(path: str | Path) -> Fingerprint:
    """Return the fingerprint of a file as it is now, even if it cannot be used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a FIFO must not wait for a writer
    except (OSError, ValueError):
        return "", ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return "", f"{status.st_mode:o}:{status.st_size}"
        with open(fd, "rb", closefd=False) as file:
            return fingerprint_of(file.read(MAX_BYTES), status)
    except OSError:
        return "", ""
    finally:
        os.close(fd)
