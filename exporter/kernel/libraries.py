"""The name of a library or a program -> its file on this host, as ld.so(8) and the shell find it.

The format of ld.so's cache is that of glibc (sysdeps/generic/dl-cache.h, struct cache_file_new). LD_LIBRARY_PATH and
directories for particular CPUs (glibc-hwcaps) are not searched: name such a library by its path.
"""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("<20sII20x")  # magic, number of libraries, size of the strings, flags, unused
_ENTRY = struct.Struct("<iIIIQ")  # flags, offset of the name, of the path, OS version, hwcap
_FLAGS = {"x86_64": 0x0303, "aarch64": 0x0A03}  # FLAG_X8664_LIB64, FLAG_AARCH64_LIB64, with FLAG_ELF_LIBC6
_DIRECTORIES = ("lib/{0}-linux-gnu", "usr/lib/{0}-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib")
_PATH = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
_LIBRARY = re.compile(r"lib.+\.so(\.[0-9.]+)?")


def find(name: str, root: Path = Path("/"), machine: str = platform.machine()) -> Path | None:
    """Return the file of "libssl.so.3" or "libssl.so", of "ssl" (the library, highest version first) or of a program;
    None if there is none. `root`: the host's root directory; a name with a slash is a path below it."""
    if "/" in name:
        path = root / name.lstrip("/")
        try:
            return path if path.exists() else None
        except PermissionError:  # /proc/PID/root of a process that even root cannot enter: opening the path fails
            return path
    if _LIBRARY.fullmatch(name):
        return _library(re.escape(name) + (r"(\.[0-9.]+)?" if name.endswith(".so") else ""), root, machine)
    library, program = _both(name, root, machine)
    return library or program


def namesakes(name: str, root: Path = Path("/"), machine: str = platform.machine()) -> tuple[Path, Path] | None:
    """Return the library and the program that "curl" can mean; None unless this host has both as ELF files."""
    if "/" in name or _LIBRARY.fullmatch(name):
        return None
    library, program = _both(name, root, machine)
    return (library, program) if library and program and _is_elf(program) else None


def _both(name: str, root: Path, machine: str) -> tuple[Path | None, Path | None]:
    library = _library(rf"lib{re.escape(name)}\.so(\.[0-9.]+)?", root, machine)
    return library, next((path for at in _PATH if (path := root / at / name).is_file()), None)


def _library(pattern: str, root: Path, machine: str) -> Path | None:
    """Return the newest library whose whole name matches. Only ELF files count: a name without a version may be a
    linker script."""
    found = {
        name: path
        for name, path in (*_in_directories(root, machine), *_in_cache(root, machine))
        if re.fullmatch(pattern, name) and _is_elf(path)
    }
    return found[max(found, key=_version)] if found else None


def _in_cache(root: Path, machine: str) -> Iterator[tuple[str, Path]]:
    try:
        data = (root / "etc/ld.so.cache").read_bytes()
    except OSError:  # musl, or a container without
        return
    start = data.find(_MAGIC)  # an older format may precede it
    if start < 0:
        return
    _, count, _ = _HEADER.unpack_from(data, start)
    for index in range(count):
        flags, name, path, _, hwcap = _ENTRY.unpack_from(data, start + _HEADER.size + index * _ENTRY.size)
        if flags == _FLAGS.get(machine) and not hwcap:
            yield _text(data, start + name), root / _text(data, start + path).lstrip("/")


def _in_directories(root: Path, machine: str) -> Iterator[tuple[str, Path]]:
    for directory in _DIRECTORIES:
        for path in sorted((root / directory.format(machine)).glob("lib*.so*")):
            yield path.name, path


def _version(name: str) -> list[int]:
    return [int(part) for part in name.rpartition(".so")[2].split(".") if part]


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode(errors="replace")
