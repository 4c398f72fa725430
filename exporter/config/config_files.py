"""Files of a configuration into text: regular, UTF-8, of bearable size, and in trusted hands where that is asked."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from exporter.config import sources
from exporter.config.sources import MAX_BYTES, Sources


class FileError(Exception):
    """A file cannot be used; `str()` is the sentence. `line` and `column` where the place in it is known."""

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(text)
        self.line, self.column = line, column


@dataclass(slots=True)
class FileReader:
    """Reads files and remembers which, and what was in them.

    owners  user ids that files may belong to; None = not asked. What is configured here runs in the kernel, so where
            the daemon runs as root nobody else may be able to write it.
    """

    owners: frozenset[int] | None = None
    sources: Sources = field(default_factory=Sources)

    def text(self, path: Path) -> str:
        """The text of `path`, line ends as \\n. FileError with a sentence for whatever is wrong with it."""
        try:
            data = self._bytes(path)
        except FileError:
            self.sources.files.setdefault(str(path), sources.look(path))
            raise
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            raise FileError(
                f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8", line, column
            ) from None
        return text.replace("\r\n", "\n")

    def _bytes(self, path: Path) -> bytes:
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise FileError(f"cannot be read: {_reason(error)}; {_hint(error)}") from None
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise FileError("is a directory; name a file")
            if not stat.S_ISREG(status.st_mode):
                raise FileError("is no regular file; name one")
            if status.st_size > MAX_BYTES:
                raise FileError(f"has {status.st_size} bytes; at most {MAX_BYTES} are read")
            if self.owners is not None:
                check_owner(path, status, self.owners)
            with open(fd, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES)
            self.sources.files.setdefault(str(path), sources.seen(data, status))
            return data
        except OSError as error:
            raise FileError(f"cannot be read: {_reason(error)}; {_hint(error)}") from None
        finally:
            os.close(fd)


def check_owner(path: Path, status: os.stat_result, owners: Collection[int]) -> None:
    """FileError unless the file belongs to one of `owners` and nobody else can write it (design §9).

    The owner's private group, which has the owner's number, is nobody else: with umask 002 every file of a checkout is
    writable by it.
    """
    if status.st_uid not in owners:
        trusted = " or ".join(str(uid) for uid in sorted(owners))
        raise FileError(
            f"belongs to user {status.st_uid}, and what stands in it runs in the kernel; "
            f"chown {min(owners)} {path}, or start with --config.trust-owner {status.st_uid} (trusted: {trusted})"
        )
    group = 0 if status.st_gid == status.st_uid else stat.S_IWGRP
    writers = [word for bit, word in ((group, "its group"), (stat.S_IWOTH, "everybody")) if status.st_mode & bit]
    if writers:
        raise FileError(
            f"can be written by {' and '.join(writers)} (mode {stat.S_IMODE(status.st_mode):04o}), "
            f"and what stands in it runs in the kernel; chmod go-w {path}"
        )


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)


def _hint(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "relative paths start at the file that names them"
    if isinstance(error, PermissionError):
        return "run as root, or make it readable"
    return "name a readable file"
