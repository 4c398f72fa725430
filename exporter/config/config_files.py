"""Files of a configuration -> text: regular, UTF-8, at most MAX_BYTES, and of trusted owners where that is required."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from exporter.config import sources
from exporter.config.sources import MAX_BYTES
from exporter.kernel.ownership import other_writers
from exporter.spec import Sources


class FileError(Exception):
    """A file cannot be used; `str()` is the sentence. `line` and `column` are 0 where the position is not known."""

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(text)
        self.line, self.column = line, column


@dataclass(slots=True)
class FileReader:
    """Reads files and records their fingerprints.

    owners  user ids that files may belong to; None for any. A configuration runs in the kernel, so a daemon that runs
            as root must not read one that other users can write.
    """

    owners: frozenset[int] | None = None
    sources: Sources = field(default_factory=Sources)

    def text(self, path: Path) -> str:
        """Return the text of `path` with \\n as line ends. FileError."""
        try:
            data = self._bytes(path)
        except FileError:
            self.sources.files.setdefault(str(path), sources.fingerprint(path))
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
                check_owner(path, status, self.owners, "and what stands in it runs in the kernel")
            with open(fd, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES)
            self.sources.files.setdefault(str(path), sources.fingerprint_of(data, status))
            return data
        except OSError as error:
            raise FileError(f"cannot be read: {_reason(error)}; {_hint(error)}") from None
        finally:
            os.close(fd)


def check_owner(path: Path, status: os.stat_result, owners: Collection[int], danger: str) -> None:
    """FileError if other users than `owners` can change the file; `danger` is the consequence in the sentence."""
    if problem := other_writers(status, owners):
        owner, trusted = status.st_uid, " or ".join(map(str, sorted(owners)))
        hint = f"chown {min(owners)} {path}, or start with --config.trust-owner {owner} (trusted: {trusted})"
        raise FileError(f"{problem}, {danger}; {f'chmod go-w {path}' if owner in owners else hint}")


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
