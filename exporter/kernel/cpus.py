"""The kernel's lists of CPUs, out of sysfs (Documentation/admin-guide/cputopology.rst)."""

from __future__ import annotations

from pathlib import Path

SYSFS = Path("/sys")


def possible(sysfs: Path = SYSFS) -> int:
    """How many CPUs could ever be online: a per-CPU map's value has as many slots, in the order of their numbers.

    OSError if sysfs is not there, ValueError if the list is not one.
    """
    return len(possible_numbers(sysfs))


def possible_numbers(sysfs: Path = SYSFS) -> list[int]:
    """The numbers of the possible CPUs: slot i of a per-CPU value belongs to the i-th of them (they may have holes)."""
    return parse(_read(sysfs, "possible"))


def online(sysfs: Path = SYSFS) -> list[int]:
    """The numbers of the CPUs that run now, ascending. Errors as in `possible`."""
    return parse(_read(sysfs, "online"))


def parse(text: str) -> list[int]:
    """The numbers in a list in the kernel's format: "0-3,8" is [0, 1, 2, 3, 8], "" is []. ValueError if it is none."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        numbers.extend(range(int(first), int(last if dash else first) + 1))
    return numbers


def _read(sysfs: Path, name: str) -> str:
    return (sysfs / "devices/system/cpu" / name).read_text(encoding="ascii")
