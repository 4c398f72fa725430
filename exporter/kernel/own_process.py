"""What the kernel says of this process: proc(5) and getrlimit(2)."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from functools import cache

_TICKS = os.sysconf("SC_CLK_TCK")  # a second
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """Bytes, seconds (`started` in Unix time, `cpu` of all threads in user mode and in the kernel), descriptors."""

    virtual: int
    resident: int
    started: float
    cpu: float
    descriptors: int
    most_descriptors: int


def own_process() -> OwnProcess | None:
    """None where /proc does not let us look."""
    try:
        fields = _text("/proc/self/stat").rpartition(b")")[2].split()  # the name before it may have anything in it
        return OwnProcess(
            virtual=int(fields[20]),
            resident=int(fields[21]) * _PAGE,
            started=_boot_time() + int(fields[19]) / _TICKS,
            cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
            descriptors=len(os.listdir("/proc/self/fd")),
            most_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
    except OSError:
        return None


@cache
def _boot_time() -> int:
    """In Unix time. OSError where /proc/stat is not there."""
    with open("/proc/stat", "rb") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(b"btime "))


def _text(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
