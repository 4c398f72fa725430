"""Bytes that nobody wrote and that go into a map: what is told, and what must not be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.loading.compiling.source import without_comments
from exporter.loading.lint import uninitialized

ROOT = Path(__file__).resolve().parents[4]
PROGRAMS = sorted([*ROOT.glob("programs/*.c"), *ROOT.glob("programs/include/*.h"), *ROOT.glob("tests/peer/*.c")])

TYPES = """\
struct tight { u32 pid; u32 cpu; };
struct padded { u32 pid; u64 cgroup; };
typedef struct { char comm[TASK_COMM_LEN]; u16 family; } named;
struct packed { u8 kind; u64 cgroup; } __attribute__((packed));
struct mixed { union { u32 v4; u8 v6[16]; }; struct { u16 port; u16 family; }; u8 unused[4]; };
struct foreign { struct in6_addr address; u8 kind; };
struct bits { u32 state:4, rest:28; };
#define PATH 24
struct path { char path[PATH]; u64 inode; };
"""


def told(body: str) -> list[str]:
    code = without_comments(f"{TYPES}int on_event(struct pt_regs *ctx)\n{{\n{body}\n}}\n")
    return [text for _, text in uninitialized.findings(code)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "struct tight key; key.pid = 1; m.lookup(&key);",
            "struct tight key goes into m.lookup() with bytes that were not written: its member cpu"
            " (write struct tight key = {}; and then its members)",
        ),
        (
            "struct padded key; key.pid = 1; key.cgroup = 2; m.update(&key, &key.cgroup);",
            "struct padded key goes into m.update() with bytes that were not written: 4 of padding behind pid"
            " (write struct padded key = {}; and then its members)",
        ),
        (
            "struct padded key = {.pid = pid(), .cgroup = 2}; m.insert(&key, &one);",
            "struct padded key goes into m.insert() with bytes that were not written: 4 of padding behind pid"
            " (write struct padded key = {}; and then its members)",
        ),
        (
            "if (ctx) {\n#ifdef X\n\tstruct mixed key;\n#endif\n key.v4 = 1; key.port = 2; m.delete(&key); }",
            "struct mixed key goes into m.delete() with bytes that were not written: its member family, unused"
            " (write struct mixed key = {}; and then its members)",
        ),
        (
            "struct bits key; m.lookup((struct bits *)&key);",
            "struct bits key goes into m.lookup() with bytes that were not written: its member state, rest"
            " (write struct bits key = {}; and then its members)",
        ),
        (
            "u64 now, *v; v = m.lookup_or_try_init(&one, &now);",
            "u64 now goes into m.lookup_or_try_init() before it was written (write u64 now = 0;)",
        ),
        (
            "unsigned long long now; m . update ( &one , & now );",
            "unsigned long long now goes into m.update() before it was written (write unsigned long long now = 0;)",
        ),
    ],
)
def test_bytes_that_were_not_written_are_told(body: str, message: str) -> None:
    assert told(body) == [message]


@pytest.mark.parametrize(
    "body",
    [
        "struct padded key = {}; key.pid = 1; m.lookup(&key);",
        "struct padded key = {0}; m.lookup(&key);",
        "struct padded key = {.pid = 7}; m.lookup(&key);",  # of constants clang writes all of it
        "struct tight key = {.pid = pid()}; m.lookup(&key);",
        "struct tight key; key.pid = 1; key.cpu = 2; m.lookup(&key);",
        "struct padded key; __builtin_memset(&key, 0, sizeof(key)); key.pid = 1; m.lookup(&key);",
        "struct padded key; bpf_probe_read_kernel(&key, sizeof(key), ctx); m.lookup(&key);",
        "struct padded key; fill(ctx, &key); m.lookup(&key);",
        "struct padded key; key = other; m.lookup(&key);",
        "struct packed key; key.kind = 1; key.cgroup = 2; m.lookup(&key);",
        "struct mixed key; key.v6[0] = 1; key.port = 1; key.family = 2; key.unused[0] = 0; m.lookup(&key);",
        "struct foreign key; key.kind = 1; key.address = a; m.lookup(&key);",  # its size is the kernel's to say
        "struct path key; bpf_probe_read_kernel(key.path, 24, ctx); key.inode = 1; m.lookup(&key);",
        "struct tight *key = pointer(); m.lookup(key);",
        "struct tight key; return sizeof(key);",
        "struct padded key; { struct padded key = {}; m.lookup(&key); }",
        "u64 now; now = bpf_ktime_get_ns(); m.update(&one, &now);",
        "u32 key; bpf_probe_read_kernel(&key, 4, ctx); m.lookup(&key);",
        "u32 key; if (!read(&key)) m.lookup(&key);",
        "struct unknown key; m.lookup(&key);",
        "u64 size; trace(&size); stats.lookup(&other);",
        'char *text = "struct padded key; m.lookup(&key);"; // u32 key; m.lookup(&key);',
    ],
)
def test_what_is_written_or_cannot_be_known_is_left_alone(body: str) -> None:
    assert told(body) == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_programs_write_all_of_their_keys(path: Path) -> None:
    assert uninitialized.findings(without_comments(path.read_text())) == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_zero_that_is_taken_out_of_a_program_is_missed(path: Path) -> None:
    text = path.read_text()
    for match in re.finditer(r"\bu64 zero( = 0)[,;]", text):
        found = uninitialized.findings(without_comments(text[: match.start(1)] + text[match.end(1) :]))
        assert [told.split(" goes")[0] for _, told in found] == ["u64 zero"]
