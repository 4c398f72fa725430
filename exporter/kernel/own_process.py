"""Memory, CPU time and descriptors of this process: proc(5), getrlimit(2) and clock_gettime(2)."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from functools import cache

_TICKS = os.sysconf("SC_CLK_TCK")  # a second
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """virtual, resident  bytes of memory
    started            Unix time in seconds
    cpu                seconds of all threads in user mode and in the kernel
    descriptors        open now; `most_descriptors`: the limit (RLIMIT_NOFILE)
    """

    virtual: int
    resident: int
    started: float
    cpu: float
    descriptors: int
    most_descriptors: int


def own_process() -> OwnProcess | None:
    """Return the numbers of this process; None where /proc is not readable."""
    try:
        # Not /proc/self/stat: the kernel adds up all threads for its fifty fields.
        virtual, resident = map(int, os.pread(_statm(os.getpid()), 4096, 0).split()[:2])
        return OwnProcess(
            virtual=virtual * _PAGE,
            resident=resident * _PAGE,
            started=_started(os.getpid()),
            cpu=time.process_time(),
            descriptors=_descriptors(),
            most_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
    except OSError:
        return None


def _descriptors() -> int:
    """Return how many descriptors are open: the size of the directory since 6.2 (f1f1f2569901), 0 before."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1  # the listing opens one


@cache
def _statm(pid: int) -> int:  # noqa: ARG001 - a fork is another process
    """Return an open /proc/self/statm: opening it takes longer than reading it. `pid` is that of this process."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


@cache
def _started(pid: int) -> float:  # noqa: ARG001
    """Return the Unix time at which this process started. `pid` is that of this process."""
    fields = _text("/proc/self/stat").rpartition(b")")[2].split()  # the name in front can have any character
    with open("/proc/stat", "rb") as lines:
        booted = next(int(line.split()[1]) for line in lines if line.startswith(b"btime "))
    return booted + int(fields[19]) / _TICKS


def _text(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
