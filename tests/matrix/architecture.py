"""What differs between the machines of the matrix by their architecture: Debian's name of it, QEMU's arguments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """machine  as `uname -m` says it
    debian   as dpkg calls it, the end of a kernel package's name
    qemu     program, machine and CPU
    console  serial console, and what else this kernel's command line needs
    """

    machine: str
    debian: str
    qemu: tuple[str, ...]
    console: str


AMD64 = Architecture(
    "x86_64",
    "amd64",
    # x86-64-v2, as numpy wants; what libraries do with AVX where they find it is slower under TCG
    ("qemu-system-x86_64", "-machine", "q35,hpet=off", "-cpu", "Nehalem"),
    "console=ttyS0 no_timer_check tsc=unstable",
)
ARM64 = Architecture(
    "aarch64", "arm64", ("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72"), "console=ttyAMA0"
)


def of(series: str) -> tuple[Architecture, str]:
    """The architecture of a series and its version: "arm64-6.1" is 6.1 on arm64, "6.1" is 6.1 on amd64."""
    name, dash, version = series.partition("-")
    return (ARM64, version) if dash and name == ARM64.debian else (AMD64, series)
