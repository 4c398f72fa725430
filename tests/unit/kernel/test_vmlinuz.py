"""Kernel files as distributions pack them: release, architecture and BTF come out of each."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.kernel import vmlinuz
from exporter.kernel.vmlinuz import KernelFile, KernelFileError

BANNER = b"Linux version %s (someone@host) (gcc 12.2.0) #1 SMP Debian\n\0"
X86_64, AARCH64, S390 = 62, 183, 22  # EM_* (include/uapi/linux/elf-em.h)


def btf(strings: bytes = b"\0int\0") -> bytes:
    types = struct.pack("<IIII", 1, 1 << 24, 4, 32)  # one int
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def elf(machine: int, release: bytes = b"6.1.0-56-amd64", types: bytes = btf()) -> bytes:
    return struct.pack("<16sHH44x", b"\x7fELF", 2, machine) + bytes(100) + BANNER % release + types + bytes(100)


def arm64(release: bytes = b"6.12.117+deb12-arm64") -> bytes:
    return bytes(56) + b"ARM\x64" + bytes(100) + BANNER % release + btf() + bytes(100)


def by(*command: str) -> Callable[[bytes], bytes]:
    return lambda data: subprocess.run(command, input=data, capture_output=True, check=True).stdout


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gzip": gzip.compress,
    "zstd": by("zstd", "-cq"),
    "lz4": by("lz4", "-lc"),
}


def written(directory: Path, image: bytes) -> Path:
    path = directory / "vmlinuz"
    path.write_bytes(image)
    return path


@pytest.mark.parametrize("packing", PACKED)
def test_a_compressed_kernel_inside_an_image(tmp_path: Path, packing: str) -> None:
    # A decompressor that has the marks of other packings in its code, the payload, and a signature behind it.
    image = b"MZ" + bytes(500) + b"\x1f\x8b\x08\0\xfd7zXZ\0" + PACKED[packing](elf(X86_64)) + b"signed" * 20
    assert vmlinuz.read(written(tmp_path, image)) == KernelFile("6.1.0-56-amd64", "x86_64", btf())


def test_an_arm64_image_plain_and_compressed(tmp_path: Path) -> None:
    expected = KernelFile("6.12.117+deb12-arm64", "aarch64", btf())
    assert vmlinuz.read(written(tmp_path, arm64())) == expected
    assert vmlinuz.read(written(tmp_path, gzip.compress(arm64()))) == expected


def test_a_vmlinux_and_the_largest_of_several_btf(tmp_path: Path) -> None:
    image = elf(AARCH64, b"7.2.1-rc3", btf() + btf(b"\0int\0longer\0") + btf())
    assert vmlinuz.read(written(tmp_path, image)) == KernelFile("7.2.1-rc3", "aarch64", btf(b"\0int\0longer\0"))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"MZ" + bytes(4096) + b"\x1f\x8b\x08 only looks like gzip", "no compressed kernel found inside"),
        (elf(X86_64, types=b""), "has no BTF (built without CONFIG_DEBUG_INFO_BTF)"),
        (elf(X86_64, types=btf(b"no strings")), "has no BTF (built without CONFIG_DEBUG_INFO_BTF)"),
        (elf(X86_64, b"of unknown age"), 'has no "Linux version"'),
        (elf(S390), "a kernel for neither x86_64 nor aarch64"),
    ],
)
def test_what_is_no_kernel_is_refused_by_name(tmp_path: Path, image: bytes, why: str) -> None:
    path = written(tmp_path, image)
    with pytest.raises(KernelFileError) as caught:
        vmlinuz.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(why)


def test_a_packing_without_its_tool_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, b"MZ" + PACKED["zstd"](elf(X86_64)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelFileError, match=r"unpack: no zstd here \(apt-get install zstd\)"):
        vmlinuz.read(path)
