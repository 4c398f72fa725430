"""Kernel settings under /proc/sys (sysctl(8))."""

from __future__ import annotations

from pathlib import Path


def read(name: str, proc: Path = Path("/proc")) -> int | None:
    """Return the value of a numeric sysctl such as "kernel.perf_event_paranoid"; None where it is absent or hidden."""
    try:
        return int((proc / "sys" / name.replace(".", "/")).read_text())
    except (OSError, ValueError):
        return None
