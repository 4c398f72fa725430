"""Lists of CPUs in sysfs (Documentation/admin-guide/cputopology.rst)."""

from __future__ import annotations

from pathlib import Path

SYSFS = Path("/sys")


def possible(sysfs: Path = SYSFS) -> int:
    """Return the number of possible CPUs: the value of a per-CPU map has one slot for each, in ascending order.

    OSError if sysfs is not mounted, ValueError if the list is malformed.
    """
    return len(possible_numbers(sysfs))


def possible_numbers(sysfs: Path = SYSFS) -> list[int]:
    """Return the numbers of the possible CPUs, which may have gaps: slot i of a per-CPU value belongs to the i-th."""
    return parse(_read(sysfs, "possible"))


def online(sysfs: Path = SYSFS) -> list[int]:
    """Return the numbers of the online CPUs, ascending. Errors as in `possible`."""
    return parse(_read(sysfs, "online"))


def parse(text: str) -> list[int]:
    """Return the numbers of a CPU list: "0-3,8" is [0, 1, 2, 3, 8], "" is []. ValueError if it is malformed."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        numbers.extend(range(int(first), int(last if dash else first) + 1))
    return numbers


def _read(sysfs: Path, name: str) -> str:
    return (sysfs / "devices/system/cpu" / name).read_text(encoding="ascii")
