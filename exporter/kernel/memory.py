"""Available memory of the host: /proc/meminfo (proc_meminfo(5))."""

from __future__ import annotations

from pathlib import Path


def available(proc: Path = Path("/proc")) -> int:
    """Return MemAvailable in bytes: memory for new processes without swapping; 0 where the kernel does not report
    it."""
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
