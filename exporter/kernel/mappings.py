"""Whether an address is one of this process's own memory, by /proc/self/maps (proc_pid_maps(5))."""

from __future__ import annotations

from pathlib import Path


def own(proc: Path = Path("/proc")) -> list[range]:
    """Every range of addresses that is mapped here now."""
    spans = (line.split(maxsplit=1)[0].split("-") for line in (proc / "self/maps").read_text().splitlines())
    return [range(int(first, 16), int(behind, 16)) for first, behind in spans]
