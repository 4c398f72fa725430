"""Readings of the kernel's objects of a loaded program, and of the descriptors that a process has open."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from exporter.kernel import bpf
from exporter.program import Descriptors, Program
from exporter.spec import ProgramSpec
from tests.kernel.programs import point
from tests.waiting import until

RAW = point("raw_tracepoint", "sys_enter", "on_raw")
TRACEPOINT = point("tracepoint", "raw_syscalls:sys_enter", "on_tracepoint")
TP_BTF = point("tp_btf", "sys_enter", "on_btf")

Load = Callable[[ProgramSpec], tuple[Program, Descriptors]]


def calls(descriptors: Descriptors) -> int:
    """Return how many calls of getppid(2) by this process the map has counted."""
    value = bpf.map_lookup(descriptors.readonly["calls"], struct.pack("=I", os.getpid()), 8)
    return struct.unpack("=Q", value)[0] if value else 0


def own_descriptors() -> list[str]:
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _open(fd))


def _open(fd: str) -> bool:
    try:
        return "bpf" in os.readlink(f"/proc/self/fd/{fd}") or "perf" in os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the directory that was listed
        return False


def descriptors(pid: int) -> dict[int, str]:
    """Return the open descriptors of a process: number to target of the link in /proc."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(entry.name)] = os.readlink(entry)
    return found


def kernel_ids(pid: int) -> dict[str, set[int]]:
    """Return the ids of the maps, programs and links that a process has open, as bpftool lists them."""
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
    """Return those of the ids that bpftool still finds in the kernel."""
    left = {}
    for kind, wanted in ids.items():
        listed = json.loads(subprocess.run(["bpftool", "-j", kind, "list"], check=True, capture_output=True).stdout)
        left[kind] = wanted & {entry["id"] for entry in listed}
    return left


def wait_gone(ids: dict[str, set[int]], seconds: float = 30) -> dict[str, set[int]]:
    """Return what is left of the ids: the kernel frees maps and programs some grace periods after the last fd."""
    with contextlib.suppress(AssertionError):
        until(lambda: not any(alive(ids).values()), seconds=seconds)
    return alive(ids)


NOTHING: dict[str, set[int]] = {"map": set(), "prog": set(), "link": set()}
