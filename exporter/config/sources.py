"""What a configuration was read from: a digest that hosts with equal files share, and whether reading it again would
find anything else."""

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
    """files    every file that was read, C texts too, in the order of reading
    globs    what each pattern of `include:` found
    absent   files that would have been taken if they had been there: programs/ beside the main file hides bundled ones
    """

    files: dict[str, Fingerprint] = field(default_factory=dict)
    globs: dict[str, list[str]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """SHA-256 over the contents of all files, in the order in which a configuration names them; not over where they
        are, nor over what they are called."""
        return hashlib.sha256("\n".join(content for content, _ in self.files.values()).encode()).hexdigest()

    def changed(self) -> bool:
        """Whether a file is not what it was, or there is another one to read. Takes a millisecond, and no YAML."""
        return (
            any(os.path.isfile(path) for path in self.absent)
            or any(matches(pattern) != before for pattern, before in self.globs.items())
            or any(fingerprint(path) != seen for path, seen in self.files.items())
        )

    def to_json(self) -> dict[str, Any]:
        return {"files": list(self.files.items()), "globs": self.globs, "absent": self.absent}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Sources:
        files = {path: (content, owner) for path, (content, owner) in document["files"]}
        return cls(files, document["globs"], document["absent"])


def matches(pattern: str) -> list[str]:
    """Names that a pattern of `include:` finds, sorted."""
    return sorted(glob.glob(pattern, recursive=True))


def fingerprint_of(data: bytes, status: os.stat_result) -> Fingerprint:
    return hashlib.sha256(data).hexdigest(), f"{status.st_uid}:{status.st_gid}:{stat.S_IMODE(status.st_mode):04o}"


def fingerprint(path: str | Path) -> Fingerprint:
    """What there is to see of a file now, whether or not it may be used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not wait for a writer
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
