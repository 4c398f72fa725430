"""What the exporter says of its own process, against other files of /proc and other calls."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from exporter.kernel.own_process import OwnProcess, own_process
from tests.waiting import in_child


def now() -> OwnProcess:
    found = own_process()
    assert found is not None
    return found


@pytest.mark.parametrize("kernel", ["this one", "before 6.2"])
def test_descriptors_are_counted_as_they_are_opened(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    now()  # opens what it keeps open
    if kernel == "before 6.2":
        monkeypatch.setattr(os, "stat", lambda _: SimpleNamespace(st_size=0))
    assert now().descriptors == len(os.listdir("/proc/self/fd")) - 1  # the listing's own
    before = now().descriptors
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(70)]  # beyond one word of the kernel's bitmap
    assert now().descriptors == before + 70
    for fd in opened:
        os.close(fd)
    assert now().descriptors == before


def test_memory_is_that_of_the_process() -> None:
    before = now()
    with mmap.mmap(-1, 64 << 20) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
        mapped = now()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert mapped.virtual == pytest.approx(int(status["VmSize"].split()[0]) << 10, abs=1 << 20)
    assert mapped.resident == pytest.approx(int(status["VmRSS"].split()[0]) << 10, abs=4 << 20)
    assert mapped.resident - before.resident > 60 << 20
    assert mapped.virtual - before.virtual >= 64 << 20


def test_a_fork_speaks_of_itself() -> None:
    now()

    def mapped() -> int:
        with mmap.mmap(-1, 256 << 20):
            return now().virtual

    assert in_child(mapped) - now().virtual > 200 << 20


def test_start_and_cpu_time_are_those_of_ps() -> None:
    found = now()
    age = int(subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, check=True).stdout)
    assert time.time() - found.started == pytest.approx(age, abs=3)
    used = os.times()
    assert found.cpu == pytest.approx(used.user + used.system, abs=1)
