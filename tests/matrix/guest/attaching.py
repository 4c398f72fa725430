"""Every kind of attach point by itself: how many events it counts of how many there were, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from exporter.loading import build
from exporter.spec import ProgramSpec
from tests.matrix.guest import product
from tests.waiting import child, until

EVENTS = 23
BYTES = 7  # in each send
NR_GETPPID = {"x86_64": 110, "aarch64": 173}  # as in programs/attach_kinds.c
TRACEFS = Path("/sys/kernel/tracing")
KPROBES = Path("/sys/kernel/debug/kprobes/list")


def counts(spec: ProgramSpec, kind: str, on: build.Host) -> dict[str, float]:
    """{"calls", "amount"} that one kind counted of EVENTS sends of BYTES bytes and EVENTS calls of getppid(2)."""
    with product.loaded(spec, kind, on) as (program, fds):
        running = product.running(program, spec, fds)
        make_events()
        seen = running.scrape()
    tgid = str(os.getpid())
    return {"calls": seen.sum("events_total", tgid=tgid), "amount": seen.sum("amount_total", tgid=tgid)}


def left_after_kill(spec: ProgramSpec, on: build.Host) -> dict[str, Any]:
    """What tracefs and the kernel's list of kprobes have while a process holds a kprobe, and after its SIGKILL."""
    before = probes()
    read, write = os.pipe()

    def attach() -> None:
        with product.loaded(spec, "kprobe", on):
            os.write(write, b"!")
            signal.pause()

    with child(attach):
        os.close(write)
        held = os.read(read, 1) == b"!"
        during = probes()
    with suppress(AssertionError):  # the last reference goes with a deferred free of the perf event
        until(lambda: probes() == before, seconds=20, every=0.1)
    return {"held": held, "before": before, "during": during, "after": probes()}


def probes() -> dict[str, list[str]]:
    """Lines of tracefs' kprobe_events, and of the kernel's list of all kprobes without their addresses."""
    listed = [line.split(maxsplit=2)[-1] for line in KPROBES.read_text().splitlines()]
    return {"kprobe_events": (TRACEFS / "kprobe_events").read_text().splitlines(), "kprobes": listed}


def make_events() -> None:
    """EVENTS sends over TCP and EVENTS calls of getppid(2)."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0],
    ):
        for _ in range(EVENTS):
            client.send(b"x" * BYTES)
    for _ in range(EVENTS):
        os.getppid()
