"""What a process can do to the scheduler and the system call table, counted."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from tests.waiting import fork, reap

MALLOC = """
#include <stdlib.h>
int main(int count, char **arguments)
{
	for (int i = count > 1 ? atoi(arguments[1]) : 0; i; i--) {
		void *volatile p = malloc(100);
		free(p);
	}
	return 0;
}
"""


def migrate(moves: int) -> int:
    """Go from one CPU to another `moves` times; migrations that the kernel counted for this task meanwhile."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    before = _migrations()
    for move in range(moves):
        os.sched_setaffinity(0, {cpus[move % 2]})
    return _migrations() - before


def _migrations() -> int:
    found = re.search(r"^se\.nr_migrations\s*:\s*(\d+)$", Path("/proc/self/sched").read_text(), re.MULTILINE)
    assert found, "/proc/self/sched (CONFIG_SCHED_DEBUG) does not tell migrations"
    return int(found[1])


def burn(seconds: float) -> float:
    """Use the CPU for so long, or until so long has passed; CPU seconds used."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ask_interval(count: int) -> int:
    """So many of a system call that hardly anybody makes: sched_rr_get_interval."""
    for _ in range(count):
        os.sched_rr_get_interval(0)
    return count


def fail_with_eloop(count: int) -> int:
    """So many system calls that fail with ELOOP."""
    with tempfile.TemporaryDirectory() as directory:
        link = Path(directory) / "link"
        link.symlink_to(link)
        for _ in range(count):
            if not _loops(link):
                raise RuntimeError(f"{link}: could be opened")
    return count


def _loops(link: Path) -> bool:
    try:
        os.close(os.open(link, os.O_RDONLY))
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def compile_allocator(directory: Path) -> Path:
    """A program that calls malloc() as often as its argument says, and as often as the C library needs."""
    source, program = directory / "allocate.c", directory / "allocate"
    source.write_text(MALLOC)
    subprocess.run(["gcc", "-O0", "-o", str(program), str(source)], check=True)
    return program


def run(command: list[str]) -> int:
    return subprocess.run(command, check=True).returncode


def read_times(file: str, count: int) -> int:
    for _ in range(count):
        Path(file).read_bytes()
    return count


def read_pci_configuration(count: int) -> tuple[str, int]:
    """One byte of the first PCI device's configuration, `count` times; its vendor as sysfs has it, and how often."""
    device = min(Path("/sys/bus/pci/devices").iterdir())
    descriptor = os.open(device / "config", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(count):
            assert len(os.pread(descriptor, 1, 0)) == 1
    finally:
        os.close(descriptor)
    return (device / "vendor").read_text().strip(), count


def run_out_of_memory(megabytes: int) -> int:
    """Ask for so much and use it, in a child that is the first to be killed; the signal that ended it."""

    def use() -> None:
        Path("/proc/self/oom_score_adj").write_text("1000")
        taken = bytearray(megabytes << 20)
        for at in range(0, len(taken), 4096):
            taken[at] = 1

    return -reap(fork(use))


def oom_kills() -> int:
    return int(re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)[1])  # type: ignore[index]


def ping_pong(rounds: int) -> int:
    """Two processes on one CPU that wait for each other in turn; how often they left it and so came back to it."""
    there, back = os.pipe(), os.pipe()
    pid = os.fork()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if pid == 0:
        for _ in range(rounds):
            os.read(there[0], 1)
            os.write(back[1], b"x")
        os._exit(0)
    for _ in range(rounds):
        os.write(there[1], b"x")
        os.read(back[0], 1)
    usage = os.wait4(pid, 0)[2]
    own = resource.getrusage(resource.RUSAGE_SELF)
    for end in (*there, *back):
        os.close(end)
    return usage.ru_nvcsw + usage.ru_nivcsw + own.ru_nvcsw + own.ru_nivcsw


def context_switches() -> int:
    """Of the whole host since it started."""
    return int(re.search(r"^ctxt (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)[1])  # type: ignore[index]
