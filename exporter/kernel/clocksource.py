"""The clock source of the kernel (Documentation/timers/timekeeping.rst)."""

from __future__ import annotations

from pathlib import Path

# Clock sources that are read over a bus and not in the CPU. bpf_ktime_get_ns() reads the clock each time
# (ktime_get_mono_fast_ns()).
SLOW = frozenset({"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"})


def current(sysfs: Path = Path("/sys")) -> str:
    """Return the name of the current clock source, like "tsc"; "" where sysfs does not have it."""
    try:
        return (sysfs / "devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        return ""
