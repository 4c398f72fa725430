"""Types of several modules beside each other, as libbpf writes them."""

from __future__ import annotations

from exporter.loading.compiling import prelude

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
