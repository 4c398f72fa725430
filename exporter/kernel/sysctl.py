"""Settings of the kernel under /proc/sys (sysctl(8))."""

from __future__ import annotations

from pathlib import Path


def read(name: str, proc: Path = Path("/proc")) -> int | None:
    """The number that "kernel.perf_event_paranoid" is set to; None where the kernel has no such setting or hides it."""
    try:
        return int((proc / "sys" / name.replace(".", "/")).read_text())
    except (OSError, ValueError):
        return None
