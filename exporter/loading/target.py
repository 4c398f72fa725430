"""What a program is compiled for: one kernel's types, release and machine; this host's or another's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from exporter.kernel.btf import VMLINUX, file_sha256


@dataclass(frozen=True, slots=True)
class Target:
    """A kernel to compile for.

    btf_path    its raw BTF; need not exist where kernel headers are installed
    release     as `uname -r` says it, "6.1.0-56-amd64"
    arch        as `uname -m` says it, "x86_64" or "aarch64"
    btf_sha256  of the file, "" where there is none
    """

    btf_path: Path
    release: str
    arch: str
    btf_sha256: str


def of_btf(btf_path: Path, release: str, arch: str) -> Target:
    """The target of a BTF file: that of another kernel or of this one. OSError if it cannot be read."""
    return Target(btf_path, release, arch, file_sha256(btf_path))


def this_host() -> Target:
    uname = os.uname()
    digest = file_sha256(VMLINUX) if VMLINUX.exists() else ""
    return Target(VMLINUX, uname.release, uname.machine, digest)
