"""The file that outlives a crash of the host: which programs had just been attached, and which are quarantined.

It is on disk before a program is attached: a temporary file and its directory are synced (fsync(2)), so it is there
as a whole or not at all. Whoever changes it locks the directory (flock(2)) and reads it again: the exporter and
`bpf-exporter quarantine` do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exporter.kernel.ownership import other_writers

FORMAT = 1
_LARGEST = 16 << 20  # bytes; a program is some 200
_LATEST = 253402300799.0  # the last second of the year 9999, as far as time.strftime() goes


class DamagedError(ValueError):
    """The file is not one that this version wrote."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A program that was young. `key`s of the mappings below say of what text, for the kernel (loading.cache_key).

    program  its name in the configuration
    since    when it was written down, in seconds of the epoch
    began    the same by CLOCK_MONOTONIC, which means something in one boot only
    """

    program: str
    since: float
    began: float


@dataclass(frozen=True, slots=True)
class Content:
    """boot         the boot in which this was written (kernel.boot)
    ended        in an orderly way: what is young then harmed nobody
    young        attached for less than five minutes, or about to be, by key
    quarantined  young when a host died, by key
    """

    boot: str = ""
    ended: bool = False
    young: Mapping[str, Suspect] = field(default_factory=dict)
    quarantined: Mapping[str, Suspect] = field(default_factory=dict)


EMPTY = Content()


def seen_from(content: Content, boot: str) -> Content:
    """Return the content for this boot: programs that were young when another boot ended without an orderly stop are
    quarantined."""
    if content.boot == boot:
        return content
    suspects = {} if content.ended else content.young
    return Content(boot=boot, quarantined={**content.quarantined, **suspects})


class CrashRecord:
    """The file in a state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "crash-record.json"

    def read(self) -> Content:
        """Empty where there is no file. OSError, or DamagedError for what is not ours or not whole."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return Content()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise DamagedError("it is a link") from error
            raise
        with open(descriptor, "rb") as file:
            if why := other_writers(os.fstat(descriptor), (0, os.geteuid())):
                raise DamagedError(f"it {why}")
            raw = file.read(_LARGEST)
        try:
            document = json.loads(raw)
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']!r}, expected {FORMAT}")
            return _content(document)
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise DamagedError(f"not a crash record: {type(error).__name__}: {error}") from error

    def change(self, how: Callable[[Content], Content], known: Content = EMPTY) -> Content:
        """Replace the content by what `how` makes of it, or of `known` where the file is damaged. Return it,
        which is on disk then. OSError if it cannot be written; the file is as before then."""
        with self._locked() as directory:
            before: Content | None = None
            with contextlib.suppress(DamagedError):
                before = self.read()
            after = how(known if before is None else before)
            if after != before or not self.path.exists():
                self._write(after, directory)
        return after

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The descriptor of the directory, which nobody else changes meanwhile."""
        self._make_directory()
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if why := other_writers(os.fstat(directory), (0, os.geteuid())):
                raise PermissionError(errno.EPERM, f"the directory {why}")
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield directory
        finally:
            os.close(directory)

    def _make_directory(self) -> None:
        wanted = self.path.parent
        if wanted.is_dir():
            return
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        above = os.open(wanted.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)

    def _write(self, content: Content, directory: int) -> None:
        document = {"format": FORMAT, **asdict(content)}
        temporary = self.path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        os.fsync(directory)


def written(since: float) -> str:
    """A time of the epoch, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(since))


def _content(document: dict[str, Any]) -> Content:
    boot, ended = document["boot"], document["ended"]
    if not isinstance(boot, str) or not isinstance(ended, bool):
        raise TypeError("boot or ended is of another type")
    return Content(boot, ended, _suspects(document["young"]), _suspects(document["quarantined"]))


def _suspects(documents: dict[str, Any]) -> dict[str, Suspect]:
    suspects = {
        key: Suspect(str(each["program"]), float(each["since"]), float(each["began"]))
        for key, each in documents.items()
    }
    for suspect in suspects.values():
        if not 0 <= suspect.since <= _LATEST or not math.isfinite(suspect.began):
            raise ValueError(f"{suspect.program} is of no time: {suspect.since}")
    return suspects
