"""Names of libraries and programs found as ld.so and the shell find them, under a root of files made for it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from exporter.kernel import libraries

ELF = b"\x7fELF"


def cache(entries: list[tuple[int, str, str, int]]) -> bytes:
    """ld.so.cache of (flags, name, path, hwcap), as glibc writes it."""
    head = 48 + 24 * len(entries)
    strings, table = b"", b""
    for flags, name, path, hwcap in entries:
        name_at, path_at = head + len(strings), head + len(strings) + len(name) + 1
        strings += name.encode() + b"\0" + path.encode() + b"\0"
        table += struct.pack("<iIIIQ", flags, name_at, path_at, 0, hwcap)
    return struct.pack("<20sII20x", b"glibc-ld.so.cache1.1", len(entries), len(strings)) + table + strings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "opt/lib/libssl.so.3": ELF,
        "opt/lib/libssl.so.10": ELF,
        "opt/lib32/libssl.so.3": ELF,
        "usr/lib/x86_64-linux-gnu/libz.so": b"/* GNU ld script */",
        "usr/lib/x86_64-linux-gnu/libz.so.1": ELF,
        "usr/lib/aarch64-linux-gnu/libz.so.2": ELF,
        "usr/bin/python3": ELF,
        "usr/local/bin/python3": ELF,
        "usr/bin/z": ELF,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "etc").mkdir()
    entries = [
        (0x0303, "libssl.so.10", "/opt/lib/libssl.so.10", 0),
        (0x0303, "libssl.so.3", "/opt/lib/libssl.so.3", 0),
        (0x0303, "libssl.so.11", "/opt/lib/haswell/libssl.so.11", 1 << 62),
        (0x0003, "libssl.so.12", "/opt/lib32/libssl.so.3", 0),
        (0x0303, "libgone.so.1", "/opt/lib/libgone.so.1", 0),
    ]
    (tmp_path / "etc/ld.so.cache").write_bytes(b"ld.so-1.7.0\0\0\0\0\0" + cache(entries))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ssl", "opt/lib/libssl.so.10"),
        ("libssl.so", "opt/lib/libssl.so.10"),
        ("libssl.so.3", "opt/lib/libssl.so.3"),
        ("z", "usr/lib/x86_64-linux-gnu/libz.so.1"),
        ("python3", "usr/local/bin/python3"),
        ("/usr/bin/z", "usr/bin/z"),
        ("gone", None),
        ("libssl.so.12", None),
        ("/usr/bin/none", None),
    ],
)
def test_name_is_found_where_the_loader_or_the_shell_finds_it(root: Path, name: str, found: str | None) -> None:
    assert libraries.find(name, root, "x86_64") == (root / found if found else None)


def test_another_machine_has_its_own_directories(root: Path) -> None:
    assert libraries.find("z", root, "aarch64") == root / "usr/lib/aarch64-linux-gnu/libz.so.2"


def test_a_name_of_a_library_and_a_program_is_both(root: Path) -> None:
    library, program = root / "usr/lib/x86_64-linux-gnu/libz.so.1", root / "usr/bin/z"
    assert libraries.namesakes("z", root, "x86_64") == (library, program)
    assert libraries.namesakes("libz.so.1", root, "x86_64") is None
    assert libraries.namesakes("/usr/bin/z", root, "x86_64") is None
    assert libraries.namesakes("ssl", root, "x86_64") is None
    program.write_text("#!/bin/sh")
    assert libraries.namesakes("z", root, "x86_64") is None, "a script has no code to probe"
