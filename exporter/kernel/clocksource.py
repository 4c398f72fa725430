"""The clock that the kernel reads the time from (Documentation/timers/timekeeping.rst)."""

from __future__ import annotations

from pathlib import Path

# Read over a bus instead of in the CPU. bpf_ktime_get_ns() reads the clock each time (ktime_get_mono_fast_ns()).
SLOW = frozenset({"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"})


def current(sysfs: Path = Path("/sys")) -> str:
    """Its name, "tsc" or "arch_sys_counter"; "" where sysfs does not say."""
    try:
        return (sysfs / "devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        return ""
