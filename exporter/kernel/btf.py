"""BTF of the kernel through libbpf.so.1: finding types, listing members and enumerators, writing all types as C.

libbcc depends on libbpf, so every host that compiles has it. The BTF of a map has few types and needs no library:
loading/compiling/btf_types.py reads it. Format: Documentation/bpf/btf.rst, uapi/linux/btf.h.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

VMLINUX = Path("/sys/kernel/btf/vmlinux")

# include/uapi/linux/btf.h
BTF_KIND_INT = 1
BTF_KIND_PTR = 2
BTF_KIND_ARRAY = 3
BTF_KIND_STRUCT = 4
BTF_KIND_UNION = 5
BTF_KIND_ENUM = 6
BTF_KIND_FWD = 7
BTF_KIND_TYPEDEF = 8
BTF_KIND_VOLATILE = 9
BTF_KIND_CONST = 10
BTF_KIND_RESTRICT = 11
BTF_KIND_FUNC = 12
BTF_KIND_FUNC_PROTO = 13
BTF_KIND_VAR = 14
BTF_KIND_DATASEC = 15
BTF_KIND_FLOAT = 16
BTF_KIND_DECL_TAG = 17
BTF_KIND_TYPE_TAG = 18
BTF_KIND_ENUM64 = 19

QUALIFIERS = frozenset({BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG})
_TRANSPARENT = QUALIFIERS | {BTF_KIND_TYPEDEF}


@dataclass(frozen=True, slots=True)
class StructMember:
    """A member of a kernel struct or union; members of anonymous inner structs belong to the outer struct.

    offset   bits from the start of the struct
    size     bytes; 0 for a bit-field and for an array without length
    bits     width of a bit-field, else 0
    holds    "struct x" or "union x" where the member is one, or an array of them, by value; else ""
    points   the same where it is a pointer to one; else ""
    type_id  BTF id of its type
    """

    name: str
    offset: int
    size: int
    bits: int
    holds: str
    points: str
    type_id: int


class KernelBtf:
    """The types of one kernel from a raw BTF file such as /sys/kernel/btf/vmlinux or one extracted from a vmlinuz.

    A module's file (/sys/kernel/btf/MODULE) has only the types that vmlinux lacks and needs vmlinux as `base`, which
    must stay open as long. Its ids continue those of the base, and lookups search both.

    Opening takes 20 ms, and some 10 MB until `close`. OSError if there is no such file or libbpf cannot parse it.
    """

    def __init__(self, path: str | os.PathLike[str] = VMLINUX, base: KernelBtf | None = None) -> None:
        self.path = Path(path)
        self._base = base
        self._lib = _libbpf()
        if base is None:
            self._btf = self._lib.btf__parse(os.fsencode(self.path), None)
        else:
            self._btf = self._lib.btf__parse_split(os.fsencode(self.path), base._btf)
        if not self._btf:
            error = ctypes.get_errno()  # from 4000 on enum libbpf_errno
            raise OSError(error, f"read BTF {self.path}: {'not a BTF file' if error >= 4000 else os.strerror(error)}")

    def close(self) -> None:
        if self._btf:
            self._lib.btf__free(self._btf)
            self._btf = None

    def __enter__(self) -> KernelBtf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def sha256(self) -> str:
        """Return the hex digest of the file: two kernels with equal digests have equal layouts."""
        return file_sha256(self.path)

    def dump_c(self, out: str | os.PathLike[str]) -> None:
        """Write every type as C in an order that compiles ("vmlinux.h"): 2.8 MB in 0.1 s. Of a module only the types
        that the base lacks, to be compiled after those of the base. OSError."""
        libc = _libc()
        first = self._base._count() if self._base else 1
        # btf_dump_printf_fn_t has the signature of vfprintf: libc writes each token without a call into Python.
        stream = libc.fopen(os.devnull.encode() if self._base else os.fsencode(out), b"w")
        if not stream:
            error = ctypes.get_errno()
            raise OSError(error, f"write {os.fspath(out)}: {os.strerror(error)}")
        dump = self._lib.btf_dump__new(self._btf, ctypes.cast(libc.vfprintf, ctypes.c_void_p), stream, None)
        try:
            if dump and self._base:  # to /dev/null: the dumper has to know that the base's types are declared
                self._dump_types(dump, 1, first)
                if not libc.freopen(os.fsencode(out), b"w", stream):
                    error = ctypes.get_errno()
                    raise OSError(error, f"write {os.fspath(out)}: {os.strerror(error)}")
            if dump:
                self._dump_types(dump, first, self._count())
        finally:
            self._lib.btf_dump__free(dump)
            failed = libc.fclose(stream)
        if not dump or failed:
            error = ctypes.get_errno()
            raise OSError(error, f"write {os.fspath(out)}: {os.strerror(error)}")

    def _dump_types(self, dump: int, first: int, end: int) -> None:
        for type_id in range(first, end):
            error = -self._lib.btf_dump__dump_type(dump, type_id)
            if error:
                raise OSError(error, f"write BTF type {type_id} of {self.path} as C: {os.strerror(error)}")

    def _count(self) -> int:
        return int(self._lib.btf__type_cnt(self._btf))

    def find(self, name: str, kind: int) -> int:
        """Return the id of the first type of that BTF_KIND_* and name, 0 if there is none."""
        return max(0, int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind))) if name else 0

    def function_id(self, name: str) -> int:
        """Return the id of a kernel function for fentry and fexit; 0 if BTF has none (inlined or absent)."""
        return self.find(name, BTF_KIND_FUNC)

    def find_struct(self, tag: str) -> int:
        """Return the id of "struct x" or "union x"; a bare name is a struct. 0 if there is none."""
        keyword, _, name = tag.rpartition(" ")
        return self.find(name, BTF_KIND_UNION if keyword == "union" else BTF_KIND_STRUCT)

    def struct_size(self, tag: str) -> int:
        """Return sizeof("struct x") in bytes. KeyError if the kernel has no such struct."""
        return int(self._type(self._struct_id(tag)).size)

    def struct_members(self, tag: str) -> list[StructMember]:
        """Return the members of "struct x", "union x" or a bare struct name, in order. KeyError if there is no such
        type."""
        return list(self._members(self._struct_id(tag), 0))

    def has_member(self, path: str) -> bool:
        """Return True if "request_queue.disk" or, through inner structs and pointers, "sock.sk_socket.file" exists."""
        tag, *names = path.split(".")
        type_id = self.find_struct(tag)
        for name in names:
            member = next((m for m in self._members(type_id, 0) if m.name == name), None) if type_id else None
            if member is None:
                return False
            type_id = self._inside(member)
        return bool(names) or type_id != 0

    def enum_values(self, name: str) -> dict[int, str]:
        """Return value -> name of an enum, of names with one value the first. Empty if there is no such enum."""
        type_id = self.find(name, BTF_KIND_ENUM) or self.find(name, BTF_KIND_ENUM64)
        if not type_id:
            return {}
        head = self._type(type_id)
        wide, signed = head.kind == BTF_KIND_ENUM64, head.kind_flag
        record = struct.Struct(("<Iq" if signed else "<IQ") if wide else ("<Ii" if signed else "<II"))
        values: dict[int, str] = {}
        for name_offset, value in record.iter_unpack(ctypes.string_at(head.data, head.length * record.size)):
            values.setdefault(value, self._name(name_offset))
        return values

    def _struct_id(self, tag: str) -> int:
        type_id = self.find_struct(tag)
        if not type_id:
            raise KeyError(f"{tag}: not in the BTF {self.path}")
        return type_id

    def _members(self, struct_id: int, base: int) -> Iterator[StructMember]:
        """Members with offsets from `base` bits on, anonymous inner structs and unions opened."""
        head = self._type(struct_id)
        if head.kind not in (BTF_KIND_STRUCT, BTF_KIND_UNION):
            return
        for name_offset, type_id, offset in _MEMBER.iter_unpack(
            ctypes.string_at(head.data, head.length * _MEMBER.size)
        ):
            bits, position = (offset >> 24, offset & 0xFFFFFF) if head.kind_flag else (0, offset)
            name, target = self._name(name_offset), self._resolve(type_id)
            if not name:
                yield from self._members(target, base + position)
                continue
            size = 0 if bits else max(0, int(self._lib.btf__resolve_size(self._btf, type_id)))
            holds, points = self._tag(self._element(target)), self._tag(self._pointee(target))
            yield StructMember(name, base + position, size, bits, holds, points, type_id)

    def _inside(self, member: StructMember) -> int:
        """Return the id of the struct, named or not, that a member contains or points to; 0 for other members."""
        target = self._resolve(member.type_id)
        target = self._pointee(target) or self._element(target)
        return self.find_struct(self._tag(target)) if target and self._type(target).kind == BTF_KIND_FWD else target

    def _type(self, type_id: int) -> _Head:
        address = int(self._lib.btf__type_by_id(self._btf, type_id) or 0)
        if not address:
            raise KeyError(f"BTF {self.path} has no type {type_id}")
        name_offset, info, size = _HEAD.unpack(ctypes.string_at(address, _HEAD.size))
        return _Head(name_offset, (info >> 24) & 0x1F, info & 0xFFFF, bool(info >> 31), size, address + _HEAD.size)

    def _name(self, offset: int) -> str:
        return bytes(self._lib.btf__name_by_offset(self._btf, offset) or b"").decode(errors="replace")

    def _resolve(self, type_id: int) -> int:
        """Return the id behind typedefs, const, volatile and tags."""
        while type_id and (head := self._type(type_id)).kind in _TRANSPARENT:
            type_id = head.size
        return type_id

    def _element(self, type_id: int) -> int:
        """Return the element type of an array of any number of dimensions; the type itself if it is not an array."""
        while type_id and (head := self._type(type_id)).kind == BTF_KIND_ARRAY:
            type_id = self._resolve(struct.unpack("<I", ctypes.string_at(head.data, 4))[0])
        return type_id

    def _pointee(self, type_id: int) -> int:
        head = self._type(type_id) if type_id else None
        return self._resolve(head.size) if head and head.kind == BTF_KIND_PTR else 0

    def _tag(self, type_id: int) -> str:
        """Return "struct x" or "union x" of a named one, or of its forward declaration; else ""."""
        if not type_id:
            return ""
        head = self._type(type_id)
        name = self._name(head.name_offset)
        if not name or head.kind not in (BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_FWD):
            return ""
        union = head.kind == BTF_KIND_UNION or (head.kind == BTF_KIND_FWD and head.kind_flag)
        return f"{'union' if union else 'struct'} {name}"


@dataclass(frozen=True, slots=True)
class _Head:
    """struct btf_type: `length` is vlen, `size` is the size or the type id, `data` the address of what follows it."""

    name_offset: int
    kind: int
    length: int
    kind_flag: bool
    size: int
    data: int


_HEAD = struct.Struct("<III")  # struct btf_type
_MEMBER = struct.Struct("<III")  # struct btf_member


def file_sha256(path: str | os.PathLike[str] = VMLINUX) -> str:
    """Return the hex digest of a BTF file without libbpf: a warm start needs it for cache keys."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _libbpf() -> ctypes.CDLL:
    """Load libbpf 1.x with its prototypes (bpf/btf.h). OSError if it is not installed (Debian: libbpf1)."""
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    pointer, number, text = ctypes.c_void_p, ctypes.c_uint, ctypes.c_char_p
    for name, result, arguments in (
        ("libbpf_set_print", pointer, [pointer]),
        ("btf__parse", pointer, [text, pointer]),
        ("btf__parse_split", pointer, [text, pointer]),
        ("btf__free", None, [pointer]),
        ("btf__type_cnt", number, [pointer]),
        ("btf__type_by_id", pointer, [pointer, number]),
        ("btf__name_by_offset", text, [pointer, number]),
        ("btf__find_by_name_kind", ctypes.c_int, [pointer, text, number]),
        ("btf__resolve_size", ctypes.c_int64, [pointer, number]),
        ("btf_dump__new", pointer, [pointer, pointer, pointer, pointer]),
        ("btf_dump__dump_type", ctypes.c_int, [pointer, number]),
        ("btf_dump__free", None, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print(None)  # errors are returned as errno; libbpf would also write them to stderr
    return lib


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
    libc.freopen.restype = ctypes.c_void_p
    libc.freopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
    libc.fclose.restype, libc.fclose.argtypes = ctypes.c_int, [ctypes.c_void_p]
    return libc
