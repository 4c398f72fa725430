"""vmlinuz -> the BTF of that kernel, without booting it.

An x86 bzImage holds a compressed ELF kernel; .BTF is one of its sections. The bytes are those that the booted kernel
serves as /sys/kernel/btf/vmlinux. An arm64 Image is no ELF, but its BTF can be found by its header (linux/btf.h).
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

BTF_HEADER = struct.Struct(
    "<HBBIIIII"
)  # struct btf_header: magic, version, flags, hdr_len, type off/len, string off/len
BTF_START = struct.pack("<HBBI", 0xEB9F, 1, 0, BTF_HEADER.size)


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _gzip(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data)


def _tool(*command: str) -> Callable[[bytes], bytes]:
    # Both tools warn about the bytes that follow the payload and still write all of it.
    return lambda data: subprocess.run(command, input=data, capture_output=True, timeout=120).stdout


PAYLOADS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\0", _xz),
    (b"\x28\xb5\x2f\xfd", _tool("zstd", "-dcq")),
    (b"\x1f\x8b\x08", _gzip),
    (b"\x02\x21\x4c\x18", _tool("lz4", "-dc")),
)


def extract(vmlinuz: Path) -> bytes:
    """The BTF in `vmlinuz`. ValueError if there is none."""
    image = vmlinuz.read_bytes()
    if image[56:60] == b"ARM\x64" and (btf := find_btf(image)):
        return btf
    for magic, unpack in PAYLOADS:
        at = image.find(magic)
        while at >= 0:
            try:
                kernel = unpack(image[at:])
            except (lzma.LZMAError, zlib.error):
                kernel = b""  # these bytes only look like the start of a payload
            if kernel[:4] == b"\x7fELF" or kernel[56:60] == b"ARM\x64":
                if btf := find_btf(kernel):
                    return btf
                raise ValueError(f"{vmlinuz}: the kernel inside has no BTF")
            at = image.find(magic, at + 1)
    raise ValueError(f"{vmlinuz}: no compressed kernel found inside")


def find_btf(kernel: bytes) -> bytes:
    """The largest well-formed BTF in `kernel`, b"" if there is none: types follow the header, strings follow them."""
    best = b""
    at = kernel.find(BTF_START)
    while at >= 0 and at + BTF_HEADER.size <= len(kernel):
        *_, type_off, type_len, str_off, str_len = BTF_HEADER.unpack_from(kernel, at)
        end = at + BTF_HEADER.size + str_off + str_len
        strings = at + BTF_HEADER.size + str_off
        whole = type_off == 0 and str_off == type_len and str_len > 0 and end <= len(kernel)
        if whole and kernel[strings] == 0 and kernel[end - 1] == 0 and end - at > len(best):
            best = kernel[at:end]
        at = kernel.find(BTF_START, at + 1)
    return best
