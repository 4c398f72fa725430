"""The kernel that a program is compiled for: the running one, or another one by its vmlinuz or its raw BTF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from exporter.kernel.btf import VMLINUX, KernelBtf, file_sha256
from exporter.kernel.features import version


@dataclass(frozen=True, slots=True)
class Target:
    """A kernel to compile for.

    btf_path       its raw BTF; need not exist where kernel headers are installed
    release        as `uname -r` says it, "6.1.0-56-amd64"
    arch           as `uname -m` says it, "x86_64" or "aarch64"
    btf_sha256     of the file, "" where there is none
    knows_release  False where `release` is made up: nobody said it, and a BTF file has none
    """

    btf_path: Path
    release: str
    arch: str
    btf_sha256: str
    knows_release: bool = True


class TargetError(Exception):
    """The command line does not name a kernel to compile for: "OPTION FILE: cause (hint)"."""


def this_host() -> Target:
    """Return the running kernel."""
    uname = os.uname()
    digest = file_sha256(VMLINUX) if VMLINUX.exists() else ""
    return Target(VMLINUX, uname.release, uname.machine, digest)


@contextmanager
def of_options(image: Path | None, btf: Path | None, release: str | None, arch: str | None) -> Iterator[Target]:
    """Yield the kernel in a vmlinuz, or the one of a file of raw BTF, else the running one. TargetError.

    release, arch  as `uname -r` and `uname -m` say them there; None for what the file says
    """
    option = f"--kernel {image}" if image else f"--btf {btf}"
    with ExitStack() as opened:
        try:
            if image:
                target = _of_image(image, opened.enter_context(tempfile.NamedTemporaryFile()), release, arch)
            else:
                target = _of_btf(option, btf, release, arch) if btf else this_host()
        except OSError as error:
            raise TargetError(f"{option}: {error.strerror or error}") from error
        yield target


def _of_image(image: Path, file: IO[bytes], release: str | None, arch: str | None) -> Target:
    """Return the kernel in a vmlinuz, after its BTF is written to the file."""
    from exporter.kernel import vmlinuz  # only here, because the daemon imports this module too

    try:
        found = vmlinuz.read(image)
    except vmlinuz.KernelFileError as error:
        raise TargetError(f"--kernel {error}") from error
    file.write(found.btf)
    file.flush()
    return _of_btf(f"--kernel {image}", Path(file.name), release or found.release, arch)


def _of_btf(option: str, btf: Path, release: str | None, arch: str | None) -> Target:
    """Return the target of a file of raw BTF. Without a release it is the running kernel if the types are the same,
    else one of the running kernel's version, under a name that nothing of the running kernel is taken for."""
    with KernelBtf(btf) as types:
        found = arch_of(types)
    if not found:
        raise TargetError(f"{option}: types of neither x86_64 nor aarch64, which are those that are known")
    if arch not in (None, found):
        raise TargetError(f"{option}: these are the types of {found}, not of {arch} (leave --arch out)")
    digest = file_sha256(btf)
    if release is None:
        own = this_host()
        numbers = ".".join(map(str, version(own.release)))
        return own if own.btf_sha256 == digest else Target(btf, f"{numbers}-unknown", found, digest, False)
    try:
        version(release)
    except ValueError as error:
        raise TargetError(f"--release: {error} (what uname -r says there: 6.1.0-56-amd64)") from error
    return Target(btf, release, found, digest)


def arch_of(types: KernelBtf) -> str:
    """Return the architecture of a kernel's types as `uname -m` says it, by its registers; "" for an unknown one."""
    if types.has_member("pt_regs.orig_ax"):
        return "x86_64"
    return "aarch64" if types.has_member("pt_regs.pstate") else ""
