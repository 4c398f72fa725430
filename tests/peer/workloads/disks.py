"""Block devices and file systems of a test's own: loop devices, what is done to them and what the kernel counted."""

from __future__ import annotations

import mmap
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 4096


@contextmanager
def loop_device(megabytes: int = 16) -> Iterator[str]:
    """Name of a loop device ("loop3") over a new file."""
    with tempfile.NamedTemporaryFile(prefix="loop-", dir="/var/tmp") as file:
        file.truncate(megabytes << 20)
        command = ["losetup", "--find", "--show", file.name]
        device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        try:
            yield device.removeprefix("/dev/")
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)


def requests(device: str) -> dict[str, int]:
    """Completed requests by operation (Documentation/admin-guide/iostats.rst), and their milliseconds."""
    fields = list(map(int, Path(f"/sys/block/{device}/stat").read_text().split()))
    found = {"read": fields[0], "write": fields[4], "read_ms": fields[3], "write_ms": fields[7]}
    if len(fields) > 15:  # 5.5
        found["flush"] = fields[15]
    return found


def read_and_write(device: str, reads: int, writes: int, flushes: int) -> None:
    """Blocks in no order that could be merged, past the page cache."""
    descriptor = os.open(f"/dev/{device}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    with mmap.mmap(-1, BLOCK) as page:
        try:
            for number in range(reads):
                assert os.preadv(descriptor, [page], number * 7 % 512 * BLOCK) == BLOCK
            for number in range(writes):
                assert os.pwritev(descriptor, [page], number * 11 % 512 * BLOCK) == BLOCK
            for _ in range(flushes):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


MEGABYTES = {"ext4": 64, "xfs": 320}  # mkfs.xfs makes none below 300; the file behind it has holes


@contextmanager
def mounted(kind: str) -> Iterator[Path]:
    """A fresh file system of this kind, on a loop device."""
    with loop_device(MEGABYTES[kind]) as device, tempfile.TemporaryDirectory(prefix=f"{kind}-") as point:
        subprocess.run([f"mkfs.{kind}", f"/dev/{device}"], check=True, capture_output=True)
        subprocess.run(["mount", "-t", kind, f"/dev/{device}", point], check=True)
        try:
            yield Path(point)
        finally:
            subprocess.run(["umount", point], check=True)


def use(directory: Path, count: int) -> dict[str, int]:
    """So many of each operation on a file of this file system, in a process that does nothing else there."""
    file = directory / "file"
    file.touch()
    file.chmod(0o600)
    for _ in range(count):
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        os.pwrite(descriptor, b"x" * 100, 0)
        os.pread(descriptor, 100, 0)
        os.fsync(descriptor)
        os.close(descriptor)
        os.stat(file)
    return {"read": count, "write": count, "open": count + 1, "sync": count, "getattr": count}


def read_pages(file: Path, pages: int) -> None:
    """Each page of a file by itself, never the same twice in a row."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for page in range(pages):
            assert os.pread(descriptor, 100, page * BLOCK)
    finally:
        os.close(descriptor)


def read_ends(file: Path, count: int) -> None:
    """The first and the last page of a file in turn, which are in different folios however large those are."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        last = os.fstat(descriptor).st_size - BLOCK
        for number in range(count):
            assert os.pread(descriptor, 100, last if number % 2 else 0)
    finally:
        os.close(descriptor)
