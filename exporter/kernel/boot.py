"""The boot id: /proc/sys/kernel/random/boot_id (random(4))."""

from __future__ import annotations

from pathlib import Path


def boot_id(proc: Path = Path("/proc")) -> str:
    """Return the UUID of this boot, the same in every container; "" where /proc hides it."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
