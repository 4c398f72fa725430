"""Memory mappings of this process: /proc/self/maps (proc_pid_maps(5))."""

from __future__ import annotations

from pathlib import Path


def mapped_ranges(proc: Path = Path("/proc")) -> list[range]:
    """Return every range of addresses that is mapped."""
    spans = (line.split(maxsplit=1)[0].split("-") for line in (proc / "self/maps").read_text().splitlines())
    return [range(int(first, 16), int(end, 16)) for first, end in spans]
