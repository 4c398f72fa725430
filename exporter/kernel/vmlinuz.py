"""A kernel image (vmlinuz, Image or vmlinux) -> its release, architecture and BTF, without booting it.

An x86 bzImage holds a compressed ELF kernel; .BTF is one of its sections, with the bytes of
/sys/kernel/btf/vmlinux. An arm64 Image is not ELF and may be compressed; its BTF is found by the header
(include/uapi/linux/btf.h). The release is in linux_banner (init/version-timestamp.c), as in uname -r.
"""

from __future__ import annotations

import lzma
import re
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_BTF = struct.Struct("<HBBIIIII")  # struct btf_header: magic, version, flags, hdr_len, type off/len, string off/len
_BTF_START = struct.pack("<HBBI", 0xEB9F, 1, 0, _BTF.size)
_BANNER = re.compile(rb"Linux version (\d[\w.+~-]*) \(")
_ELF, _ELF_MACHINE = b"\x7fELF", struct.Struct("<H")
_MACHINES = {62: "x86_64", 183: "aarch64"}  # EM_X86_64, EM_AARCH64 (include/uapi/linux/elf-em.h)
_ARM64_IMAGE = b"ARM\x64"  # at 56 (Documentation/arch/arm64/booting.rst)


class KernelFileError(Exception):
    """The file is not a kernel that can be read here: "FILE: cause (hint)"."""


@dataclass(frozen=True, slots=True)
class KernelFile:
    """release as in `uname -r`, arch as in `uname -m`, btf the raw BTF of vmlinux."""

    release: str
    arch: str
    btf: bytes


def read(path: Path) -> KernelFile:
    """Read a vmlinuz, an Image or an uncompressed vmlinux. OSError, KernelFileError."""
    image = path.read_bytes()
    kernel = next((found for found in _kernels(path, image) if found), b"")
    if not kernel:
        raise KernelFileError(f"{path}: no compressed kernel found inside")
    arch = "aarch64" if _is_arm64(kernel) else _MACHINES.get(*_ELF_MACHINE.unpack_from(kernel, 18))
    if arch is None:
        raise KernelFileError(f"{path}: a kernel for neither x86_64 nor aarch64")
    banner = _BANNER.search(kernel)
    if banner is None:
        raise KernelFileError(f'{path}: the kernel inside has no "Linux version"')
    btf = _largest_btf(kernel)
    if not btf:
        raise KernelFileError(f"{path}: the kernel inside has no BTF (built without CONFIG_DEBUG_INFO_BTF)")
    return KernelFile(banner[1].decode(), arch, btf)


def _kernels(path: Path, image: bytes) -> Iterator[bytes]:
    """Yield candidates for the kernel, best first; b"" for bytes that only look like the start of a compressed one."""
    if image[:4] == _ELF or _is_arm64(image):
        yield image
    for magic, unpack in _PAYLOADS:
        at = image.find(magic)
        while at >= 0:
            try:
                found = unpack(image[at:])
            except (lzma.LZMAError, zlib.error):
                found = b""
            except FileNotFoundError as error:
                raise KernelFileError(
                    f"{path}: unpack: no {error.filename} here (apt-get install {error.filename})"
                ) from error
            yield found if found[:4] == _ELF or _is_arm64(found) else b""
            at = image.find(magic, at + 1)


def _is_arm64(image: bytes) -> bool:
    return image[56:60] == _ARM64_IMAGE


def _largest_btf(kernel: bytes) -> bytes:
    """Return the largest well-formed BTF, b"" if there is none: types follow the header, strings follow the types."""
    best = b""
    at = kernel.find(_BTF_START)
    while at >= 0 and at + _BTF.size <= len(kernel):
        *_, type_off, type_len, str_off, str_len = _BTF.unpack_from(kernel, at)
        end = at + _BTF.size + str_off + str_len
        strings = at + _BTF.size + str_off
        whole = type_off == 0 and str_off == type_len and str_len > 0 and end <= len(kernel)
        if whole and kernel[strings] == 0 and kernel[end - 1] == 0 and end - at > len(best):
            best = kernel[at:end]
        at = kernel.find(_BTF_START, at + 1)
    return best


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _gzip(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data)


def _tool(*command: str) -> Callable[[bytes], bytes]:
    # Both tools warn about the bytes behind the payload and still write all of the payload.
    return lambda data: subprocess.run(command, input=data, capture_output=True, timeout=120).stdout


_PAYLOADS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\0", _xz),
    (b"\x28\xb5\x2f\xfd", _tool("zstd", "-dcq")),
    (b"\x1f\x8b\x08", _gzip),
    (b"\x02\x21\x4c\x18", _tool("lz4", "-dc")),
)
