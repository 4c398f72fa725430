"""A 64-bit ELF file -> file offsets of its functions and USDT probes, which uprobes are attached to.

pyelftools parses headers, sections and versions (elf(5), gABI); this module unpacks symbols, of which a program can
have a million. Addresses are virtual addresses of the file, offsets are bytes from its start.
"""

from __future__ import annotations

import fnmatch
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection
from elftools.elf.sections import Section

_MACHINE = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, shndx, value, size
_NOTE = struct.Struct("<III")  # Elf64_Nhdr: namesz, descsz, type
_STAPSDT = 3
_SHN_UNDEF, _STT_FUNC, _STT_GNU_IFUNC, _STT_NOTYPE = 0, 2, 10, 0
_VERSYM_HIDDEN = 0x8000  # an older version for old programs, not the default of the name
_DEBUG = Path("/usr/lib/debug/.build-id")


class NotElfError(Exception):
    """The file cannot have probes; the text has the cause."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function: its name without version, and its address.

    version   "GLIBC_2.2.5", "" for none
    default   True if the name without a version means this one
    resolver  True for an indirect function: the address is that of the code that selects an implementation, once
    """

    name: str
    address: int
    version: str = ""
    default: bool = True
    resolver: bool = False


@dataclass(frozen=True, slots=True)
class UsdtNote:
    """One location of a USDT probe (.note.stapsdt, version 3 of SystemTap's sys/sdt.h).

    address    of the probed instruction
    semaphore  address of the counter that is above 0 while a tracer is attached, 0 for none
    arguments  "-4@%edi 8@8(%rsp)", in the assembler's syntax
    """

    provider: str
    name: str
    address: int
    semaphore: int
    arguments: str


@dataclass(frozen=True, slots=True)
class _Segment:
    address: int
    offset: int
    size: int
    executable: bool


class ElfFile:
    """An open ELF file. OSError if it cannot be read, NotElfError if it is not 64-bit code for `machine` (uname -m)."""

    def __init__(self, path: Path, machine: str = platform.machine()) -> None:
        self.path = path
        self._stream = path.open("rb")
        try:
            self._elf = ELFFile(self._stream)
            found = _MACHINE.get(self._elf["e_machine"], str(self._elf["e_machine"]))
            if self._elf.elfclass != 64 or found != machine:
                raise NotElfError(f"{path} is {self._elf.elfclass}-bit code for {found}, this kernel runs {machine}")
            self._segments = [
                _Segment(s["p_vaddr"], s["p_offset"], s["p_filesz"], bool(s["p_flags"] & 1))
                for s in self._elf.iter_segments()
                if s["p_type"] == "PT_LOAD"
            ]
        except ELFError as error:
            self._stream.close()
            head = path.read_bytes()[:2]
            what = "a script: name the program that runs it" if head == b"#!" else f"damaged or no program: {error}"
            raise NotElfError(f"{path} is no ELF file ({what})") from error
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> ElfFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def build_id(self) -> str:
        """Return NT_GNU_BUILD_ID in hex, "" without one."""
        section = self._section(".note.gnu.build-id")
        data = section.data() if section else b""
        if len(data) < _NOTE.size + 4:
            return ""
        name_size, size, _ = _NOTE.unpack_from(data)
        start = _NOTE.size + _aligned(name_size)
        return data[start : start + size].hex()

    def offset(self, address: int) -> int | None:
        """Return the file offset of an address; None if no segment of the file contains it."""
        for segment in self._segments:
            if segment.address <= address < segment.address + segment.size:
                return address - segment.address + segment.offset
        return None

    def is_code(self, offset: int) -> bool:
        """Return True if an executable segment contains the offset: a breakpoint elsewhere is never hit."""
        return any(s.executable and s.offset <= offset < s.offset + s.size for s in self._segments)

    def functions(self, name: str) -> list[Symbol]:
        """Return every function of that name in all versions; of a stripped file also those of its installed debug
        file. Imported functions are not included."""
        wanted = name.encode()
        found = [s for table in (".dynsym", ".symtab") for s in self._symbols(table, wanted)]
        if not found and (debug := self._debug_file()):
            with debug:
                found = list(debug._symbols(".symtab", wanted))
        return list(dict.fromkeys(found))

    def imports(self, name: str) -> bool:
        """Return True if the file imports a function of that name from another file."""
        wanted = name.encode()
        return any(shndx == _SHN_UNDEF and found == wanted for found, _, shndx, _ in self._table(".dynsym"))

    def function_names(self) -> set[str]:
        """Return the names of all functions, without versions."""
        tables = [self, debug] if not self._section(".symtab") and (debug := self._debug_file()) else [self]
        names = set[str]()
        for elf in tables:
            for table in (".dynsym", ".symtab"):
                names |= {
                    found.partition(b"@")[0].decode(errors="replace")
                    for found, kind, shndx, _ in elf._table(table)
                    if shndx != _SHN_UNDEF and kind in (_STT_FUNC, _STT_GNU_IFUNC)
                }
        return names - {""}

    def matching(self, pattern: str) -> list[str]:
        """Return the names of functions that match a glob, sorted."""
        return sorted(fnmatch.filter(self.function_names(), pattern))

    def variable(self, name: str) -> int | None:
        """Return the address of the symbol of that name, None if there is none."""
        wanted = name.encode()
        for table in (".symtab", ".dynsym"):
            for found, _, shndx, address in self._table(table):
                if found == wanted and shndx != _SHN_UNDEF:
                    return address
        return None

    def usdt_notes(self) -> list[UsdtNote]:
        """Return every location of every USDT probe, in the order of the file."""
        section = self._section(".note.stapsdt")
        base = self._section(".stapsdt.base")
        return list(_notes(section.data(), base["sh_addr"] if base else 0)) if section else []

    def _section(self, name: str) -> Section | None:
        section = self._elf.get_section_by_name(name)
        return None if section is None or section["sh_type"] == "SHT_NOBITS" else section

    def _table(self, name: str) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield (name, STT_ type, section index, address) of each symbol in .symtab or .dynsym."""
        section = self._section(name)
        if section is None:
            return
        texts = self._elf.get_section(section["sh_link"]).data()
        for at, info, _, shndx, address, _ in _SYMBOL.iter_unpack(section.data()):
            yield texts[at : texts.find(b"\0", at)], info & 0xF, shndx, address

    def _symbols(self, table: str, wanted: bytes) -> Iterator[Symbol]:
        versions = self._versions() if table == ".dynsym" else []
        for index, (found, kind, shndx, address) in enumerate(self._table(table)):
            if shndx == _SHN_UNDEF or kind not in (_STT_FUNC, _STT_GNU_IFUNC, _STT_NOTYPE):
                continue
            name, at, version = found.partition(b"@")  # .symtab of an unstripped library has NAME@@VERSION
            if name != wanted or (kind == _STT_NOTYPE and not self._in_code(address)):
                continue
            text, default = version.lstrip(b"@").decode(), not at or version.startswith(b"@")
            if index < len(versions):
                text, default = versions[index]
            yield Symbol(name.decode(), address, text, default, kind == _STT_GNU_IFUNC)

    def _in_code(self, address: int) -> bool:
        offset = self.offset(address)
        return offset is not None and self.is_code(offset)

    def _versions(self) -> list[tuple[str, bool]]:
        """Return (version, is default) of each symbol in .dynsym; [] where symbols have no versions."""
        section, defined = self._section(".gnu.version"), self._section(".gnu.version_d")
        if section is None or not isinstance(defined, GNUVerDefSection):
            return []
        names = {version["vd_ndx"]: next(texts).name for version, texts in defined.iter_versions()}
        return [
            (names.get(number & 0x7FFF, "") if number & 0x7FFF > 1 else "", not number & _VERSYM_HIDDEN)
            for (number,) in struct.iter_unpack("<H", section.data())
        ]

    def _debug_file(self) -> ElfFile | None:
        """Open the debug file of a -dbgsym or -debuginfo package; None if it is not installed."""
        build_id = self.build_id
        path = _DEBUG / build_id[:2] / f"{build_id[2:]}.debug"
        if not build_id or not path.exists():
            return None
        return ElfFile(path, _MACHINE[self._elf["e_machine"]])


def _notes(data: bytes, base: int) -> Iterator[UsdtNote]:
    """The notes of the section's bytes. `base`: the address of .stapsdt.base in the file as it is; a note has it as it
    was when the file was linked, and prelink(8) may have moved everything since."""
    position = 0
    while position + _NOTE.size <= len(data):
        name_size, size, kind = _NOTE.unpack_from(data, position)
        name_at = position + _NOTE.size
        at = name_at + _aligned(name_size)
        position = at + _aligned(size)
        if kind != _STAPSDT or data[name_at : name_at + name_size] != b"stapsdt\0":
            continue
        address, linked_base, semaphore = struct.unpack_from("<QQQ", data, at)
        moved = base - linked_base if base else 0
        provider, name, arguments, *_ = data[at + 24 : at + size].split(b"\0")
        yield UsdtNote(
            provider.decode(errors="replace"),
            name.decode(errors="replace"),
            address + moved,
            semaphore + moved if semaphore else 0,
            arguments.decode(errors="replace"),
        )


def _aligned(size: int) -> int:
    return (size + 3) & ~3
