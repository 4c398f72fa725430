"""The files of a configuration: their digest, which hosts with equal files share, and whether they have changed."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_BYTES = 4 << 20  # the largest config seen in the field has 200 kB

Fingerprint = tuple[str, str]  # SHA-256 of a file's content in hex, "" where it cannot be read; owner, group and mode


@dataclass(slots=True)
class Sources:
    """files    every file that was read, including C texts, in the order of reading
    globs    the matches of each pattern of `include:`
    absent   files that would be read if they existed: programs/ beside the main file overrides bundled programs
    """

    files: dict[str, Fingerprint] = field(default_factory=dict)
    globs: dict[str, list[str]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """Return the SHA-256 of the contents of all files in the order of reading, without their names and paths."""
        return hashlib.sha256("\n".join(content for content, _ in self.files.values()).encode()).hexdigest()

    def changed(self) -> bool:
        """Return True if reading again would find another content, owner, mode or file. Takes a millisecond, no
        YAML."""
        return (
            any(os.path.isfile(path) for path in self.absent)
            or any(matches(pattern) != before for pattern, before in self.globs.items())
            or any(fingerprint(path) != before for path, before in self.files.items())
        )

    def to_json(self) -> dict[str, Any]:
        return {"files": list(self.files.items()), "globs": self.globs, "absent": self.absent}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Sources:
        files = {path: (content, owner) for path, (content, owner) in document["files"]}
        return cls(files, document["globs"], document["absent"])


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
