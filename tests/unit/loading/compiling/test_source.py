"""The text that bcc is given, and what is said of a program before any compiler sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.loading.compiling import source
from exporter.loading.lint import rules
from exporter.spec import ProgramSpec, VariantSpec

HEADER = "/* exporter.h */\n"
VARIANT = VariantSpec(attach=[])


def program(text: str, path: str = "sends.c", line: int = 1, **fields: object) -> ProgramSpec:
    values = {"name": "sends", "variants": [VARIANT], "metrics": [], "source": Path(path), "line": line, "text": text}
    return ProgramSpec.model_validate({**values, **fields})


def test_each_part_says_where_it_comes_from() -> None:
    made = source.assemble(program("int on_send(void *ctx)\n{ return 0; }"), VARIANT, HEADER)
    assert made.text == (
        '#line 1 "exporter.h"\n/* exporter.h */\n#line 1 "sends.c"\nint on_send(void *ctx)\n{ return 0; }\n'
    )


def test_lost_maps_are_declared_in_front_of_the_header() -> None:
    text = "BPF_HASH(b, u32);\nBPF_HASH(a, u32);\nint f(void *c) { lost(LOST(b)); return lost(LOST( a )); }\n"
    made = source.assemble(program(text), VARIANT, HEADER)
    assert made.text.startswith('enum { lost_a, lost_b, lost_count };\n#define LOST_UPDATES 1\n#line 1 "exporter.h"\n')
    assert made.lost == ("a", "b")


def test_inline_code_counts_from_its_place_in_the_yaml() -> None:
    text = "BPF_HASH(a, u32);\nint f(void *c)\n{\n  return lost(LOST(typo));\n}\n"
    assert (
        '#line 12 "/etc/exporter/config \\"x\\".yaml"\n'
        in source.assemble(program("int f;\n", '/etc/exporter/config "x".yaml', 12), VARIANT, HEADER).text
    )
    assert rules.findings(program(text, "config.yaml", 12)) == [
        "config.yaml:15: LOST(typo): the program has no map 'typo' (name the map that was full)"
    ]


def test_lost_in_comments_and_literals_counts_nothing() -> None:
    text = """\
// LOST(x)
/* LOST(y) */ char *s = "LOST(z)"; /* don't ' LOST(w)
*/ char q = '"'; // " LOST(v)
int LOSTER;
"""
    assert source.lost_maps(program(text)) == ()


def test_lines_are_right_behind_a_tracepoint_probe() -> None:
    text = "// TRACEPOINT_PROBE(a, b)\nTRACEPOINT_PROBE(tcp,\n                 tcp_probe) {\n\treturn 0;\n}\nint x;\n"
    made = source.assemble(program(text, line=5), VARIANT, HEADER).text
    assert made.endswith(
        '#line 5 "sends.c"\n// TRACEPOINT_PROBE(a, b)\nTRACEPOINT_PROBE(tcp,\n                 tcp_probe) {\n'
        '#line 8 "sends.c"\n\treturn 0;\n}\nint x;\n\n'
    )


def test_defines_and_variant_become_flags() -> None:
    defines = {"SAMPLE": 10, "DEVICE": '"eth0"'}
    named = VariantSpec(name="raw-tp.6", attach=[])
    assert source.flags(program("", defines=defines), named) == (
        '-DDEVICE="eth0"',
        "-DSAMPLE=10",
        "-DVARIANT_RAW_TP_6=1",
    )
    assert source.flags(program(""), VARIANT) == ()


def test_comments_are_blanked_in_place() -> None:
    text = 'int a; /* one\ntwo */ int b; // three \\\nstill\nchar *c = "/*"; int d;'
    blank = source.without_comments(text)
    assert len(blank) == len(text)
    assert [line.split() for line in blank.split("\n")] == [
        ["int", "a;"], ["int", "b;"], [], ["char", "*c", "=", ";", "int", "d;"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "sends.increment(key);",
            "sends.c:2: .increment() loses counts on several CPUs and inserts nothing into per-CPU and LRU maps "
            "(write add(MAP.lookup_or_try_init(&key, &zero), 1, LOST(MAP)))",
        ),
        (
            "sends . atomic_increment (key);",
            "sends.c:2: .atomic_increment() loses counts on several CPUs and inserts nothing into per-CPU and LRU maps "
            "(write add(MAP.lookup_or_try_init(&key, &zero), 1, LOST(MAP)))",
        ),
        (
            "v = sends.lookup_or_init(&key, &zero);",
            "sends.c:2: .lookup_or_init() ends the program without a word when the map is full "
            "(write MAP.lookup_or_try_init(&key, &zero) and count NULL with lost(LOST(MAP)))",
        ),
        (
            "key.slot = bpf_log2l(delta);",
            "sends.c:2: bpf_log2l() is no slot: 2^k falls into the bucket above le = 2^k (write exp2_slot(value))",
        ),
        (
            "key.slot = bpf_log2(delta);",
            "sends.c:2: bpf_log2() is no slot: 2^k falls into the bucket above le = 2^k (write exp2_slot(value))",
        ),
        (
            'BPF_TABLE_PINNED("hash", u32, u64, sends, 64, "/sys/fs/bpf/sends");',
            "sends.c:2: BPF_TABLE_PINNED leaves a map behind in bpffs while compiling "
            "(maps stay with the exporter; write BPF_TABLE())",
        ),
        (
            'BPF_TABLE_SHARED("hash", u32, u64, sends, 64);',
            "sends.c:2: BPF_TABLE_SHARED shares a map with other modules of one process, and each program here has its "
            "own (write BPF_TABLE())",
        ),
        (
            "static u64 total = 0;",
            "sends.c:2: total is a variable of the file, and bcc gives the kernel none "
            "(write BPF_ARRAY(total, u64, 1) for what changes, `defines:` for what does not)",
        ),
        (
            "const volatile u64 min_ns = 0;",
            "sends.c:2: min_ns is a variable of the file, and bcc gives the kernel none "
            "(write BPF_ARRAY(min_ns, u64, 1) for what changes, `defines:` for what does not)",
        ),
        (
            "struct key { u64 a; };\nstruct key keys[4];",
            "sends.c:3: keys is a variable of the file, and bcc gives the kernel none "
            "(write BPF_ARRAY(keys, struct key, 1) for what changes, `defines:` for what does not)",
        ),
        (
            '#include "sends.h"',
            'sends.c:2: #include "sends.h" is not found (bcc reads one text; put it into the program)',
        ),
    ],
)  # fmt: skip
def test_what_counts_wrong_is_refused_with_what_to_write(line: str, message: str) -> None:
    assert rules.findings(program(f"struct before;\n{line}\n")) == [message]


def test_all_mistakes_are_named_in_the_order_of_the_text() -> None:
    found = rules.findings(program("a.increment(k);\nb = bpf_log2l(x);\nc.increment(k);\n", "config.yaml", 40))
    assert [text.split(": ")[0] for text in found] == ["config.yaml:40", "config.yaml:41", "config.yaml:42"]


def test_good_programs_and_comments_are_left_alone() -> None:
    text = (
        "#include <net/sock.h>\n// never write sends.increment(key), nor bpf_log2l(x)\n/*\n#include \"old.h\"\n*/\n"
        "v = sends.lookup_or_try_init(&key, &zero);\nstruct increment { u32 bpf_log2; };\n"
        "static const u64 limit = 10;\nenum { A, B };\ntypedef u32 port;\nstruct sock;\nint f(int a);\n"
        "int g(void *ctx)\n{\n\tint local;\n\n\treturn local;\n}\n"
    )  # fmt: skip
    assert rules.findings(program(text)) == []
