"""What of a kernel's C text a program gets: enough to compile, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.loading.compiling import needed_types
from exporter.loading.compiling.needed_types import KernelTypes, defined

# As libbpf writes it, in an order that compiles.
VMLINUX = """\
typedef unsigned int __u32;

typedef __u32 u32;

enum {
\tIPPROTO_TCP = 6,
\tIPPROTO_UDP = 17,
};

enum colour {
\tRED = 0,
};

struct inner {
\tu32 number;
};

struct far;

struct near {
\tenum colour colour;
};

struct outer {
\tstruct inner inner[2];
\tstruct near *next;
\tstruct near *other;
\tint (*call)(struct far *, u32);
};

struct far {
\tlong int x;
};

typedef struct {
\tstruct far far;
} pair_t;

struct outer___2 {
\tint x;
};

"""


@pytest.fixture
def types(tmp_path: Path) -> KernelTypes:
    (tmp_path / "include").mkdir()
    (tmp_path / "include/vmlinux.h").write_text(VMLINUX)
    needed_types.write_index(tmp_path)
    return needed_types.read(tmp_path)


def names(text: str) -> list[str]:
    return [name for block in text.split("\n\n") for name in defined(block)]


def test_a_struct_comes_with_what_it_holds(types: KernelTypes) -> None:
    assert names(types.needed("struct outer *o;")) == ["__u32", "u32", "struct inner", "struct outer"]


def test_a_pointer_is_followed_where_its_member_is_named(types: KernelTypes) -> None:
    assert "struct near" not in names(types.needed("struct outer *o; o->inner"))
    assert names(types.needed("struct outer *o; o->next->colour"))[2:] == [
        "enum colour", "RED", "struct inner", "struct near", "struct outer",
    ]  # fmt: skip


def test_arguments_of_a_pointer_to_a_function_are_declared(types: KernelTypes) -> None:
    text = types.needed("struct outer *o; o->call")
    assert "struct far;" in text.partition("\n\n")[0].split("\n")
    assert "struct far" not in names(text)


def test_typedefs_and_enumerators_are_found_by_their_names(types: KernelTypes) -> None:
    assert names(types.needed("pair_t *pair;"))[2:] == ["struct far", "pair_t"]
    assert names(types.needed("IPPROTO_UDP"))[2:] == ["IPPROTO_TCP", "IPPROTO_UDP"]
    assert names(types.needed("BPF_ANY")) == ["__u32", "u32"], "the scalars that every program gets"


def test_names_that_the_kernel_does_not_have_are_left_to_the_compiler(types: KernelTypes) -> None:
    assert types.needed("struct nowhere *x; nothing_t y;") == types.needed("")


def test_names_of_several_structs_are_known(types: KernelTypes) -> None:
    assert types.several == {"struct outer"}


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / needed_types.INDEX).write_text("{")
    with pytest.raises(json.JSONDecodeError):
        needed_types.read(tmp_path)


def test_a_block_is_known_by_what_it_defines() -> None:
    assert list(defined("struct a {\n\tint x;\n};")) == ["struct a"]
    assert list(defined("union b {\n\tint x;\n} __attribute__((packed));")) == ["union b"]
    assert list(defined("enum c {\n\tX = 0,\n\tY = 1,\n};")) == ["enum c", "X", "Y"]
    assert list(defined("enum {\n\tX = 0,\n};")) == ["X"]
    assert list(defined("typedef int t;")) == ["t"]
    assert list(defined("typedef unsigned char id_t[16];")) == ["id_t"]
    assert list(defined("typedef struct {\n\tint (*x)(int);\n} pair_t;")) == ["pair_t"]
    assert list(defined("typedef int (*call_t)(struct a *, int);")) == ["call_t"]
    assert list(defined("typedef const char (* const names_t)[32];")) == ["names_t"]
    assert list(defined("typedef enum result handler_t(struct sk_buff **);")) == ["handler_t"]
    assert list(defined("struct a;")) == []
