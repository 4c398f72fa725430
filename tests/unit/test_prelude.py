"""Types of several modules beside each other, as libbpf writes them."""

from __future__ import annotations

from exporter.loading import prelude

TEXT = """\
struct page___2 {
\tint a;
};

typedef struct page___2 page_t___3;

struct user {
\tstruct page___2 *page;
\tstruct list___2 *of_the_kernel;
};
"""


def test_second_names_belong_to_the_module_that_has_them() -> None:
    text = prelude.own_names(TEXT, "veth")
    assert "struct page___2_veth {" in text
    assert "typedef struct page___2_veth page_t___3_veth;" in text
    assert "struct page___2_veth *page;" in text
    assert "struct list___2 *of_the_kernel;" in text, "vmlinux.h has that one"


def test_block_is_known_by_what_it_defines() -> None:
    assert prelude.head("struct a {\n\tint x;\n};") == "struct a"
    assert prelude.head("union b {\n\tint x;\n};") == "union b"
    assert prelude.head("enum c {\n\tX = 0,\n};") == "enum c"
    assert prelude.head("enum {\n\tX = 0,\n};") == "enum {\n\tX = 0,\n};"
    assert prelude.head("typedef int t;") == "typedef t"
    assert prelude.head("typedef unsigned char id_t[16];") == "typedef id_t"
    assert prelude.head("typedef struct {\n\tint (*x)(int);\n} pair_t;") == "typedef pair_t"
    assert prelude.head("typedef int (*call_t)(struct a *, int);") == "typedef call_t"
    assert prelude.head("typedef enum result handler_t(struct sk_buff **);") == "typedef handler_t"
    assert prelude.head("struct a;") == ""
