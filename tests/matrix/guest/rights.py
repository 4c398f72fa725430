"""A scrape by a process that has given up its rights, as the server is one."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.kernel import bpf, credentials
from exporter.loading import build
from exporter.spec import ProgramSpec
from tests.matrix.guest import product

NOBODY = 65534


def read_as_nobody(spec: ProgramSpec, on: build.Host, keep: frozenset[int]) -> dict[str, Any]:
    """Counts before and after the drop to uid 65534 with the capabilities `keep`: the read works and goes on counting,
    writing through the read-only descriptor does not."""
    with product.loaded(spec, "raw_tracepoint", on) as (program, fds):
        running = product.running(program, spec, fds)
        own = str(os.getpid())
        for _ in range(23):
            os.getppid()
        as_root = running.scrape().sum("events_total", tgid=own)
        bpf.map_update(fds.maps["events"], bytes(4), bytes(16))  # root's own descriptor may write
        sysctl = Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip()
        credentials.drop_to(NOBODY, NOBODY, keep)
        for _ in range(23):
            os.getppid()
        try:
            dropped = running.scrape().sum("events_total", tgid=own)
            error = ""
        except AssertionError as refused:
            dropped, error = 0.0, str(refused)
        try:
            bpf.map_update(fds.readonly["events"], bytes(4), bytes(16))
            written = True
        except PermissionError:
            written = False
        now = asdict(credentials.read())
        return {
            "as_root": as_root,
            "dropped": dropped,
            "error": error,
            "written": written,
            "unprivileged_bpf_disabled": sysctl,
            "effective": sorted(now["effective"]),
            "uids": now["uids"],
        }
