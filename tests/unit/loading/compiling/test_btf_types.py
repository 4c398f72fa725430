"""Layouts out of BTF blobs that are written by hand, as clang and pahole write them."""

from __future__ import annotations

import struct

import pytest

from exporter.kernel import btf
from exporter.loading.compiling.btf_types import Blob
from exporter.program import Member, Type


class Writer:
    """Writes a BTF blob; each method adds a type and returns its id."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""
        self.count = 0

    def raw(self) -> bytes:
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return header + self.types + self.strings

    def add(self, kind: int, name: str = "", size: int = 0, tail: bytes = b"", length: int = 0, flag: int = 0) -> int:
        self.types += struct.pack("<III", self.text(name), flag << 31 | kind << 24 | length, size) + tail
        self.count += 1
        return self.count

    def text(self, name: str) -> int:
        if not name:
            return 0
        self.strings += name.encode() + b"\0"
        return len(self.strings) - len(name) - 1

    def integer(self, name: str, size: int, encoding: int = 0) -> int:
        return self.add(btf.BTF_KIND_INT, name, size, struct.pack("<I", encoding << 24 | size * 8))

    def typedef(self, name: str, of: int) -> int:
        return self.add(btf.BTF_KIND_TYPEDEF, name, of)

    def array(self, of: int, count: int) -> int:
        return self.add(btf.BTF_KIND_ARRAY, tail=struct.pack("<III", of, of, count))

    def struct(self, name: str, size: int, *members: tuple[str, int, int, int], kind: int = btf.BTF_KIND_STRUCT) -> int:
        """Members as (name, type, offset in bits, width of a bit-field or 0)."""
        flag = any(bits for *_, bits in members)
        tail = b"".join(struct.pack("<III", self.text(n), of, at | bits << 24) for n, of, at, bits in members)
        return self.add(kind, name, size, tail, len(members), flag)


@pytest.fixture
def writer() -> Writer:
    return Writer()


def test_typedefs_keep_their_outermost_name(writer: Writer) -> None:
    u16 = writer.typedef("__u16", writer.integer("unsigned short", 2))
    big_endian = writer.typedef("__be16", u16)
    assert Blob(writer.raw()).layout(big_endian) == Type("int", "__be16", 2)
    assert Blob(writer.raw()).layout(u16) == Type("int", "__u16", 2)


def test_signs_and_encodings_of_integers(writer: Writer) -> None:
    signed, char, boolean = writer.integer("int", 4, 1), writer.integer("char", 1, 3), writer.integer("_Bool", 1, 4)
    blob = Blob(writer.raw())
    assert blob.layout(signed) == Type("int", "int", 4, signed=True)
    assert blob.layout(char) == Type("int", "char", 1, signed=True, encoding="char")
    assert blob.layout(boolean) == Type("int", "bool", 1, encoding="bool")


def test_nested_structs_unions_and_bit_fields(writer: Writer) -> None:
    u32 = writer.integer("unsigned int", 4)
    inner = writer.struct("", 4, ("v4", u32, 0, 0), ("v6", u32, 0, 0), kind=btf.BTF_KIND_UNION)
    outer = writer.struct("key", 8, ("address", inner, 0, 0), ("a", u32, 32, 4), ("b", u32, 36, 12))
    number = Type("int", "unsigned int", 4)
    union = Type("union", "", 4, members=(Member("v4", 0, number), Member("v6", 0, number)))
    members = (Member("address", 0, union), Member("a", 32, number, 4), Member("b", 36, number, 12))
    assert Blob(writer.raw()).layout(outer) == Type("struct", "key", 8, members=members)


def test_dimensions_of_an_array_nest(writer: Writer) -> None:
    u16 = writer.integer("unsigned short", 2)
    inner = writer.array(u16, 2)
    outer = writer.array(inner, 3)
    matrix = Blob(writer.raw()).layout(outer)
    assert (matrix.kind, matrix.size, matrix.count) == ("array", 12, 3)
    assert matrix.element == Type("array", "unsigned short", 4, element=Type("int", "unsigned short", 2), count=2)


def test_enum_values_by_sign_and_width(writer: Writer) -> None:
    two = struct.pack("<IIII", writer.text("MINUS"), 0xFFFFFFFF, writer.text("TWO"), 2)
    signed = writer.add(btf.BTF_KIND_ENUM, "small", 4, two, 2, flag=1)
    unsigned = writer.add(btf.BTF_KIND_ENUM, "flags", 4, two, 2)
    wide = struct.pack("<III", writer.text("HIGH"), 1, 0x80000000)
    enum64 = writer.add(btf.BTF_KIND_ENUM64, "wide", 8, wide, 1)
    signed64 = writer.add(btf.BTF_KIND_ENUM64, "deep", 8, wide, 1, flag=1)
    blob = Blob(writer.raw())
    assert blob.layout(signed) == Type("enum", "small", 4, signed=True, values=(("MINUS", -1), ("TWO", 2)))
    assert blob.layout(unsigned).values == (("MINUS", 0xFFFFFFFF), ("TWO", 2))
    assert blob.layout(enum64).values == (("HIGH", 1 << 63 | 1),)
    assert blob.layout(signed64).values == (("HIGH", (1 << 63 | 1) - (1 << 64)),)


def test_typedef_names_only_what_has_no_tag(writer: Writer) -> None:
    tagged, anonymous = writer.struct("key", 4), writer.struct("", 4)
    key_t, id_t = writer.typedef("key_t", tagged), writer.typedef("id_t", anonymous)
    blob = Blob(writer.raw())
    assert (blob.layout(key_t).name, blob.layout(id_t).name) == ("key", "id_t")


def test_qualifiers_and_tags_are_looked_through(writer: Writer) -> None:
    u8 = writer.integer("unsigned char", 1)
    for kind in sorted(btf.QUALIFIERS):
        u8 = writer.add(kind, "user" if kind == btf.BTF_KIND_TYPE_TAG else "", u8)
    assert Blob(writer.raw()).layout(u8) == Type("int", "unsigned char", 1)


def test_pointers_are_named_and_never_followed(writer: Writer) -> None:
    node = 2  # struct list_node { struct list_node *next; }; the pointer is type 1 and points ahead
    pointer = writer.add(btf.BTF_KIND_PTR, size=node)
    assert writer.struct("list_node", 8, ("next", pointer, 0, 0)) == node
    void = writer.add(btf.BTF_KIND_PTR)
    blob = Blob(writer.raw())
    assert blob.layout(node).members == (Member("next", 0, Type("pointer", "struct list_node", 8)),)
    assert blob.layout(void) == Type("pointer", "void", 8)


def test_floats(writer: Writer) -> None:
    double = writer.add(btf.BTF_KIND_FLOAT, "double", 8)
    assert Blob(writer.raw()).layout(double) == Type("float", "double", 8, signed=True)


def test_what_follows_any_kind_is_skipped_by_its_size(writer: Writer) -> None:
    u32 = writer.integer("unsigned int", 4)
    prototype = writer.add(btf.BTF_KIND_FUNC_PROTO, size=u32, tail=bytes(16), length=2)
    writer.add(btf.BTF_KIND_FUNC, "on_send", prototype)
    variable = writer.add(btf.BTF_KIND_VAR, "sends", u32, struct.pack("<I", 1))
    writer.add(btf.BTF_KIND_DATASEC, ".maps", 8, struct.pack("<III", variable, 0, 8), 1)
    writer.add(btf.BTF_KIND_DECL_TAG, "tag", variable, struct.pack("<i", -1))
    writer.add(btf.BTF_KIND_FWD, "sock")
    last = writer.integer("long long", 8, 1)
    assert Blob(writer.raw()).layout(last) == Type("int", "long long", 8, signed=True)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "BTF of 0 bytes is too short"),
        (b"\xeb\x9f" + bytes(22), "no little-endian BTF of version 1: magic 0x9feb, version 0"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 100, 100, 1), "BTF is cut off after 24 bytes"),
        (
            struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1) + struct.pack("<III", 0, 31 << 24, 0) + b"\0",
            "BTF type 1 is of unknown kind 31",
        ),
    ],
)
def test_what_is_no_btf_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Blob(raw)


def test_ids_that_name_no_layout_are_refused(writer: Writer) -> None:
    function = writer.add(btf.BTF_KIND_FUNC, "on_send", 0)
    blob = Blob(writer.raw())
    with pytest.raises(KeyError, match="BTF has no type 7"):
        blob.layout(7)
    with pytest.raises(ValueError, match=r"BTF type 1 \(on_send\) is of kind 12, which has no size"):
        blob.layout(function)
