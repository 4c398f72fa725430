"""A raw BTF blob and a type id -> the layout of that C type, without libbpf.

It is for the BTF of one program's maps, which has some hundred types; kernel/btf.py reads the kernel's 130,000.
Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from exporter.kernel import btf
from exporter.program import Member, Type

_HEADER = struct.Struct("<HBBIIIII")  # struct btf_header: magic, version, flags, hdr_len, type and string section
_TYPE = struct.Struct("<III")  # struct btf_type: name_off, info, size or type
_WORD = struct.Struct("<I")
_ARRAY = struct.Struct("<III")  # struct btf_array: type, index_type, nelems
_MEMBER = struct.Struct("<III")  # struct btf_member: name_off, type, offset
_ENUM64 = struct.Struct("<III")  # struct btf_enum64: name_off, val_lo32, val_hi32

_BTF_INT_SIGNED, _BTF_INT_CHAR, _BTF_INT_BOOL = 1, 2, 4

# Bytes behind struct btf_type: a fixed part, and one for each of its vlen elements.
_TAIL: dict[int, tuple[int, int]] = {
    btf.BTF_KIND_INT: (4, 0),
    btf.BTF_KIND_PTR: (0, 0),
    btf.BTF_KIND_ARRAY: (12, 0),
    btf.BTF_KIND_STRUCT: (0, 12),
    btf.BTF_KIND_UNION: (0, 12),
    btf.BTF_KIND_ENUM: (0, 8),
    btf.BTF_KIND_FWD: (0, 0),
    btf.BTF_KIND_TYPEDEF: (0, 0),
    btf.BTF_KIND_VOLATILE: (0, 0),
    btf.BTF_KIND_CONST: (0, 0),
    btf.BTF_KIND_RESTRICT: (0, 0),
    btf.BTF_KIND_FUNC: (0, 0),
    btf.BTF_KIND_FUNC_PROTO: (0, 8),
    btf.BTF_KIND_VAR: (4, 0),
    btf.BTF_KIND_DATASEC: (0, 12),
    btf.BTF_KIND_FLOAT: (0, 0),
    btf.BTF_KIND_DECL_TAG: (4, 0),
    btf.BTF_KIND_TYPE_TAG: (0, 0),
    btf.BTF_KIND_ENUM64: (0, 12),
}


@dataclass(frozen=True, slots=True)
class _Record:
    name: str
    kind: int
    length: int  # vlen
    kind_flag: bool
    size: int  # or the id of the type it refers to
    tail: bytes


class Blob:
    """The types of one raw BTF blob. ValueError if it is no BTF, has another byte order, or a type of unknown kind."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) < _HEADER.size:
            raise ValueError(f"BTF of {len(raw)} bytes is too short")
        magic, version, _, header, types, types_length, strings, strings_length = _HEADER.unpack_from(raw)
        if (magic, version) != (0xEB9F, 1):
            raise ValueError(f"no little-endian BTF of version 1: magic {magic:#x}, version {version}")
        if header + max(types + types_length, strings + strings_length) > len(raw):
            raise ValueError(f"BTF is cut off after {len(raw)} bytes")
        self._strings = raw[header + strings : header + strings + strings_length]
        self._records = [_Record("void", 0, 0, False, 0, b"")]
        at, end = header + types, header + types + types_length
        while at < end:
            name, info, size = _TYPE.unpack_from(raw, at)
            kind, length = (info >> 24) & 0x1F, info & 0xFFFF
            if kind not in _TAIL:
                raise ValueError(f"BTF type {len(self._records)} is of unknown kind {kind}")
            fixed, each = _TAIL[kind]
            at += _TYPE.size
            tail = raw[at : at + fixed + each * length]
            self._records.append(_Record(self._text(name), kind, length, bool(info >> 31), size, tail))
            at += len(tail)

    def layout(self, type_id: int) -> Type:
        """Return the C type of that id. KeyError if there is none, ValueError if it has no size (a function, void)."""
        record = self._record(type_id)
        match record.kind:
            case btf.BTF_KIND_TYPEDEF:
                return self._typedef(record)
            case kind if kind in btf.QUALIFIERS:
                return self.layout(record.size)
            case btf.BTF_KIND_INT:
                return self._int(record)
            case btf.BTF_KIND_PTR:
                return Type("pointer", self._pointee(record.size), 8)
            case btf.BTF_KIND_ARRAY:
                return self._array(record)
            case btf.BTF_KIND_STRUCT | btf.BTF_KIND_UNION:
                word = "struct" if record.kind == btf.BTF_KIND_STRUCT else "union"
                return Type(word, record.name, record.size, members=self._members(record))
            case btf.BTF_KIND_ENUM | btf.BTF_KIND_ENUM64:
                return Type("enum", record.name, record.size, record.kind_flag, values=self._values(record))
            case btf.BTF_KIND_FLOAT:
                return Type("float", record.name, record.size, signed=True)
        raise ValueError(f"BTF type {type_id} ({record.name or 'unnamed'}) is of kind {record.kind}, which has no size")

    def _record(self, type_id: int) -> _Record:
        if not 0 <= type_id < len(self._records):
            raise KeyError(f"BTF has no type {type_id}")
        return self._records[type_id]

    def _text(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset : end if end >= 0 else None].decode(errors="replace")

    def _typedef(self, record: _Record) -> Type:
        base = self.layout(record.size)
        # A struct or enum with a tag keeps its tag; an anonymous one, and every number, takes the name of the typedef.
        if base.kind in ("struct", "union", "enum") and base.name:
            return base
        return replace(base, name=record.name)

    def _int(self, record: _Record) -> Type:
        encoding = (_WORD.unpack(record.tail)[0] >> 24) & 0x0F
        word = "bool" if encoding & _BTF_INT_BOOL else "char" if encoding & _BTF_INT_CHAR else ""
        name = "bool" if record.name == "_Bool" else record.name
        return Type("int", name, record.size, bool(encoding & _BTF_INT_SIGNED), word)

    def _array(self, record: _Record) -> Type:
        """Return an array; clang writes `u16 m[3][2]` as an array of 3 arrays of 2, so dimensions are nested."""
        element_id, _, count = _ARRAY.unpack(record.tail)
        element = self.layout(element_id)
        return Type("array", element.name, element.size * count, element=element, count=count)

    def _members(self, record: _Record) -> tuple[Member, ...]:
        members = []
        for name, type_id, offset in _MEMBER.iter_unpack(record.tail):
            # With kind_flag the upper 8 bits are the width of a bit-field; clang always writes bit-fields so.
            bits, position = (offset >> 24, offset & 0xFFFFFF) if record.kind_flag else (0, offset)
            members.append(Member(self._text(name), position, self.layout(type_id), bits))
        return tuple(members)

    def _values(self, record: _Record) -> tuple[tuple[str, int], ...]:
        if record.kind == btf.BTF_KIND_ENUM64:
            pairs = [(name, low | high << 32) for name, low, high in _ENUM64.iter_unpack(record.tail)]
            width = 64
        else:
            pairs = list(struct.iter_unpack("<II", record.tail))
            width = 32
        sign = 1 << (width - 1) if record.kind_flag else 0
        return tuple((self._text(name), value - (1 << width) if value & sign else value) for name, value in pairs)

    def _pointee(self, type_id: int) -> str:
        """Return the C name of what a pointer points to. Its layout could be endless: a list's node points to
        itself."""
        record = self._record(type_id)
        while record.kind in btf.QUALIFIERS:
            record = self._record(record.size)
        match record.kind:
            case btf.BTF_KIND_STRUCT | btf.BTF_KIND_FWD if record.kind == btf.BTF_KIND_STRUCT or not record.kind_flag:
                return f"struct {record.name}".rstrip()
            case btf.BTF_KIND_UNION | btf.BTF_KIND_FWD:
                return f"union {record.name}".rstrip()
            case btf.BTF_KIND_PTR:
                return self._pointee(record.size) + " *"
        return record.name
