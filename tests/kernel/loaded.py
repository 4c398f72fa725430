"""What the kernel holds of a loaded program, and what a process has open."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from exporter.kernel import bpf
from exporter.program import Descriptors, Program, dumps, from_json
from exporter.spec import ProgramSpec
from tests.kernel.programs import point

RAW = point("raw_tracepoint", "sys_enter", "on_raw")
TRACEPOINT = point("tracepoint", "raw_syscalls:sys_enter", "on_tracepoint")
TP_BTF = point("tp_btf", "sys_enter", "on_btf")

Load = Callable[[ProgramSpec], tuple[Program, Descriptors]]


def calls(descriptors: Descriptors) -> int:
    """getppid(2) calls of this process so far."""
    value = bpf.map_lookup(descriptors.readonly["calls"], struct.pack("=I", os.getpid()), 8)
    return struct.unpack("=Q", value)[0] if value else 0


def eventually(holds: Callable[[], bool]) -> None:
    """The kernel frees a detached program and its maps some RCU grace periods after the last fd."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "still there after 60 s"
        time.sleep(0.02)


def in_child(work: Callable[[], Program]) -> Program:
    """What the work returned in a forked child, as the supervisor has it done."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.close(reading)
            with open(writing, "w") as answer:
                answer.write(dumps(work()))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        text = answer.read()
    os.waitpid(process, 0)
    return from_json(json.loads(text))


def own_descriptors() -> list[str]:
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _open(fd))


def _open(fd: str) -> bool:
    try:
        return "bpf" in os.readlink(f"/proc/self/fd/{fd}") or "perf" in os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the directory that was listed
        return False


def descriptors(pid: int) -> dict[int, str]:
    """Open descriptors by number: what each is."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(entry.name)] = os.readlink(entry)
    return found


def kernel_ids(pid: int) -> dict[str, set[int]]:
    """Ids, as bpftool lists them, of the maps, programs and links that a process holds."""
    ids: dict[str, set[int]] = {"map": set(), "prog": set(), "link": set()}
    for number in descriptors(pid):
        try:
            text = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
        except FileNotFoundError:  # closed meanwhile
            continue
        for kind in ids:
            ids[kind] |= {int(match) for match in re.findall(rf"^{kind}_id:\s*(\d+)$", text, re.MULTILINE)}
    return ids


def alive(ids: dict[str, set[int]]) -> dict[str, set[int]]:
    """Those of the ids that bpftool still finds in the kernel."""
    left = {}
    for kind, wanted in ids.items():
        listed = json.loads(subprocess.run(["bpftool", "-j", kind, "list"], check=True, capture_output=True).stdout)
        left[kind] = wanted & {entry["id"] for entry in listed}
    return left


def wait_gone(ids: dict[str, set[int]], seconds: float = 30) -> dict[str, set[int]]:
    """What is left of the ids; the kernel frees maps and programs after a grace period."""
    deadline = time.monotonic() + seconds
    while any(left := alive(ids)) and any(left.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


NOTHING: dict[str, set[int]] = {"map": set(), "prog": set(), "link": set()}
