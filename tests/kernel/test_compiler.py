"""Real compiles on this kernel's types: maps, layouts, positions of errors, the guard, other targets."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.kernel import bpf, btf_objects
from exporter.kernel.btf import file_sha256
from exporter.loading import target
from exporter.loading.artifact import Artifact, Cache
from exporter.loading.compiling import compiler, diagnostics, headers
from exporter.loading.refusal import RefusedError
from exporter.program import Member, Reason, Type
from exporter.spec import ProgramSpec, VariantSpec
from tests.waiting import fork, reap

HEADER = (Path(__file__).parents[2] / "programs/include/exporter.h").read_text()
HOST = target.this_host()

Compile = Callable[..., Artifact]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees") / "headers"


@pytest.fixture
def compile_text(trees: Path) -> Compile:
    """Compiles a C text: (text, *, variant, target, header, trees, and any field of the program) -> its artifact."""

    def compile_it(
        text: str,
        variant: str = "",
        to: target.Target = HOST,
        header: str = HEADER,
        trees: Path = trees,
        **fields: object,
    ) -> Artifact:
        values = {
            "name": "sends",
            "variants": [VariantSpec(name=variant, attach=[])],
            "metrics": [],
            "source": Path("sends.c"),
            "text": textwrap.dedent(text),
        }
        program = ProgramSpec.model_validate({**values, **fields})
        return compiler.compile_variant(program, program.variants[0], to, header, trees)

    return compile_it


def refused(compile_text: Compile, text: str, **options: object) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        compile_text(text, **options)
    return caught.value


SENDS = """\
    struct send_key { u16 family; __be16 port; };
    BPF_HASH(sends, struct send_key, u64, 512);

    static inline int count(struct sock *sk)
    {
        struct send_key key = {};
        u64 zero = 0;

        key.family = PEEK(sk->__sk_common.skc_family);
        key.port = PEEK(sk->__sk_common.skc_dport);
        add(sends.lookup_or_try_init(&key, &zero), 1, LOST(sends));
        return 0;
    }

    int on_raw(struct bpf_raw_tracepoint_args *ctx)
    {
        return count((struct sock *)ctx->args[0]);
    }

    int on_kprobe(struct pt_regs *ctx, struct sock *sk)
    {
        return count(sk);
    }

    BPF_PROG(on_fentry, struct sock *sk)
    {
        return count(sk);
    }
"""


def test_maps_functions_and_relocations(compile_text: Compile) -> None:
    made = compile_text(SENDS)
    sends, lost = made.maps[1], made.maps[0]
    assert [m.name for m in made.maps] == ["lost_updates", "sends"]
    assert (sends.type, sends.key_size, sends.value_size, sends.max_entries, sends.flags, sends.lost_index) == (
        bpf.BPF_MAP_TYPE_HASH, 4, 8, 512, 0, 0,
    )  # fmt: skip
    assert (lost.type, lost.max_entries, lost.value, lost.lost_index) == (
        bpf.BPF_MAP_TYPE_PERCPU_ARRAY, 1, Type("int", "u64", 8), None,
    )  # fmt: skip
    assert [f.name for f in made.functions] == ["on_fentry", "on_kprobe", "on_raw"]
    for function in made.functions:
        assert {name for _, name in function.maps} == {"sends", "lost_updates"}
        for index, _ in function.maps:
            assert function.instructions[index * 8] == 0x18
            assert function.instructions[index * 8 + 4 : index * 8 + 8] == bytes(4)
    assert (made.license, made.arch, made.cache_key.release) == ("GPL", HOST.arch, HOST.release)
    assert made.bcc_version == compiler.bcc_version()
    assert set(made.btf_types) == {"sends", "lost_updates"}
    assert made.compile_seconds > 0


def test_the_kernel_takes_bytecode_and_btf(compile_text: Compile) -> None:
    made = compile_text(SENDS)
    btf = btf_objects.load(made.btf)
    opened = [btf]
    try:
        fds = {}
        for m in made.maps:
            ids = made.btf_types[m.name]
            fds[m.name] = bpf.map_create(m.type, m.key_size, m.value_size, m.max_entries, m.flags, m.name, btf, *ids)
            opened.append(fds[m.name])
        function = made.function("on_raw")
        assert function is not None
        code = bytearray(function.instructions)
        for index, name in function.maps:
            code[index * 8 + 4 : index * 8 + 8] = fds[name].to_bytes(4, "little")
        opened.append(bpf.prog_load(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, bytes(code), made.license, function.name))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_layouts_of_every_shape(compile_text: Compile) -> None:
    made = compile_text("""\
        enum direction { SENT = 1, RECEIVED };
        struct point { u8 x; s16 y; };
        struct shape_key {
            struct point at;
            __be16 port;
            __be32 address;
            bool up;
            enum direction direction;
            char comm[16];
            u32 low : 4, high : 12;
            u16 matrix[3][2];
            union { u32 v4; u8 v6[16]; } peer;
            struct sock *sk;
        };
        struct shape_value { u64 slots[28]; s64 sum; };
        BPF_PERCPU_HASH(shapes, struct shape_key, struct shape_value, 128);
        BPF_TABLE("lru_hash", u32, u32, lru, 16);
        BPF_ARRAY(totals, u64, 4);
        BPF_PERCPU_ARRAY(percpu, struct point, 2);
        int on_raw(void *ctx) { return 0; }
    """)
    maps = {m.name: m for m in made.maps}
    assert {name: (m.type, m.key_size, m.value_size, m.max_entries) for name, m in maps.items()} == {
        "shapes": (bpf.BPF_MAP_TYPE_PERCPU_HASH, 80, 232, 128),
        "lru": (bpf.BPF_MAP_TYPE_LRU_HASH, 4, 4, 16),
        "totals": (bpf.BPF_MAP_TYPE_ARRAY, 4, 8, 4),
        "percpu": (bpf.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 4, 2),
    }
    u8, u16, u32 = Type("int", "u8", 1), Type("int", "u16", 2), Type("int", "u32", 4)
    char = Type("int", "char", 1, signed=True)
    pair = Type("array", "u16", 4, element=u16, count=2)
    address = Type("array", "u8", 16, element=u8, count=16)
    point = Type(
        "struct", "point", 4, members=(Member("x", 0, u8), Member("y", 16, Type("int", "s16", 2, signed=True)))
    )
    key = maps["shapes"].key
    assert key is not None
    assert (key.kind, key.name, key.size) == ("struct", "shape_key", 80)
    assert [(m.name, m.offset, m.bits) for m in key.members] == [
        ("at", 0, 0), ("port", 32, 0), ("address", 64, 0), ("up", 96, 0), ("direction", 128, 0), ("comm", 160, 0),
        ("low", 288, 4), ("high", 292, 12), ("matrix", 304, 0), ("peer", 416, 0), ("sk", 576, 0),
    ]  # fmt: skip
    types = {m.name: m.type for m in key.members}
    assert types == {
        "at": point,
        "port": Type("int", "__be16", 2),
        "address": Type("int", "__be32", 4),
        "up": Type("int", "bool", 1, encoding="bool"),
        "direction": Type("enum", "direction", 4, values=(("SENT", 1), ("RECEIVED", 2))),
        "comm": replace(types["comm"], kind="array", name="char", size=16, count=16),
        "low": u32,
        "high": u32,
        "matrix": Type("array", "u16", 12, element=pair, count=3),
        "peer": Type("union", "", 16, members=(Member("v4", 0, u32), Member("v6", 0, address))),
        "sk": types["sk"],
    }
    assert (types["sk"].kind, types["sk"].size) == ("pointer", 8)  # bcc loses the name of what it points to
    element = types["comm"].element
    assert element is not None
    assert replace(element, signed=True, encoding="") == char
    value = maps["shapes"].value
    assert value is not None
    slots, total = value.members
    assert (slots.type.count, slots.type.element, total.offset) == (28, Type("int", "u64", 8), 28 * 64)
    assert maps["percpu"].value == point
    assert maps["lru"].key == u32


def test_members_without_a_name_are_not_dropped(compile_text: Compile) -> None:
    made = compile_text("""\
        struct inner { u32 a; u32 b; };
        struct outer { struct inner; u32 c; };
        BPF_HASH(m, struct outer, u64, 8);
        int on_raw(void *ctx) { return __builtin_offsetof(struct outer, c); }
    """)
    assert made.maps[0].key_size == 12
    error = refused(compile_text, "struct outer { int; u32 c; };\nint on_raw(void *ctx) { return 0; }\n")
    assert error.text.startswith("compile sends.c:1:16: declaration does not declare anything")


@pytest.mark.parametrize(
    ("source", "line", "place"),
    [
        ("programs/sends.c", 1, "programs/sends.c:4:9"),
        ("/etc/exporter/config.yaml", 31, "/etc/exporter/config.yaml:34:9"),
    ],
)
def test_an_error_stands_where_the_user_wrote_it(compile_text: Compile, source: str, line: int, place: str) -> None:
    text = "BPF_HASH(sends, u32, u64, 8);\nint on_raw(void *ctx)\n{\n\treturn lost(LOST(sends)) + TCP_FOO;\n}\n"
    error = refused(compile_text, text.replace("TCP_FOO", "0").replace("lost(", "nope("), source=source, line=line)
    assert error.reason is Reason.COMPILER
    assert error.text.startswith(
        f"compile {place}: implicit declaration of function 'nope' is invalid in C99 "
    ) or error.text.startswith(f"compile {place}: call to undeclared function 'nope'")


def test_an_error_behind_a_tracepoint_probe_keeps_its_line(compile_text: Compile) -> None:
    error = refused(
        compile_text,
        "TRACEPOINT_PROBE(sched, sched_switch) {\n\treturn args->next_pid;\n}\nint on_raw(void *ctx) { return X; }\n",
    )
    assert error.text.startswith("compile sends.c:4:32: use of undeclared identifier 'X'")


def test_an_error_in_the_shared_header_says_so(compile_text: Compile) -> None:
    error = refused(compile_text, "int on_raw(void *ctx) { return 0; }\n", header="/* one */\nint two = three;\n")
    assert error.text.startswith("compile exporter.h:2:11: use of undeclared identifier 'three'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "struct sock { int a; };\nint on_raw(void *ctx) { return 0; }",
            "compile sends.c:1:8: redefinition of 'sock' (the kernel has a sock of its own: choose another name)",
        ),
        (
            "int on_raw(struct bpf_raw_tracepoint_args *ctx) { return ((struct sock *)ctx->args[0])->nope; }",
            "compile sends.c:1:89: no member named 'nope' in 'struct sock' "
            "(another kernel has it? write a variant for each, with `requires: {member: STRUCT.MEMBER}`)",
        ),
        (
            "int on_raw(void *ctx) { u64 x = 1; return lost(LOST(x)); }",
            "compile sends.c:1:48: member reference base type 'u64' (aka 'unsigned long long') is not a structure or "
            "union (LOST() takes the name of a map)",
        ),
        (
            "BPF_HASH(sends, u32, u64, 8);\n#define BUMP(m, k) m.lookup(k)\n"
            "int on_raw(void *ctx) { u32 k = 0; u64 *v = BUMP(sends, &k); return 0; }",
            "compile sends.c:3:50: cannot use map function inside a macro "
            "(write the map operation out; functions can take the pointer)",
        ),
        (
            "int on_raw(void *ctx) { char c = 0; bpf_probe_write_user(ctx, &c, 1); return 0; }",
            "compile function on_raw: calls bpf_probe_write_user, which changes what it observes "
            "(refused; take it out)",
        ),
        (
            "int on_raw(void *ctx) { bpf_send_signal(9); return bpf_override_return(ctx, 1); }",
            "compile function on_raw: calls bpf_override_return, bpf_send_signal, which changes what it observes "
            "(refused; take it out)",
        ),
        (
            "BPF_ARRAY(version, u64, 4);\nint on_raw(void *ctx) { return 0; }",
            "compile symbol 'version' is already defined (choose another name than version)",
        ),
        (
            "struct big { char c[600]; };\nBPF_HASH(h, struct big, u64, 4);\n"
            "int on_raw(void *ctx) { struct big b = {}; bpf_get_current_comm(&b.c, 600); h.lookup(&b); return 0; }",
            "compile function on_raw: needs more than the 512 bytes of stack that BPF has "
            "(a key or value this large belongs in a BPF_PERCPU_ARRAY of one entry)",
        ),
        (
            "static __attribute__((noinline)) int f(int x) { return x * bpf_get_smp_processor_id(); }\n"
            "int on_raw(void *ctx) { int s = 0; for (int i = 0; i < 100000; i++) s += f(i); return s; }",
            "compile function on_raw: calls a function that is not inlined (declare it static inline)",
        ),
        (
            "static int f(void) { return 0; }",
            "compile sends.c: no function to attach (all static, or none without a variant?)",
        ),
        (
            "BPF_HASH(h, u32, u64);\nint f(void *c) { u32 k = 0; h.increment(k); return 0; }",
            "compile sends.c:2: .increment() loses counts on several CPUs and inserts nothing into per-CPU and LRU "
            "maps (write add(MAP.lookup_or_try_init(&key, &zero), 1, LOST(MAP)))",
        ),
    ],
)
def test_mistakes_are_told_with_what_would_work(compile_text: Compile, text: str, message: str) -> None:
    error = refused(compile_text, text)
    assert error.reason is Reason.COMPILER
    assert error.text.split("\n")[0] == message


def test_a_map_that_the_kernel_does_not_make_is_named(compile_text: Compile) -> None:
    text = (
        "struct value { u64 x[%d]; };\nBPF_PERCPU_ARRAY(big, struct value, %d);\nint on_raw(void *ctx) { return 0; }\n"
    )
    error = refused(compile_text, text % (8192, 4))
    assert (error.reason, error.text) == (
        Reason.MAP,
        "create map big: argument list too long "
        "(key, value or their number are too large; a per-CPU value may have 32 KiB)",
    )
    error = refused(compile_text, text % (1, 0))
    assert error.text == (
        "create map big: invalid argument "
        "(no size and no number of entries may be 0; a ring buffer's pages are a power of two)"
    )


def test_defines_and_variant_reach_the_text(compile_text: Compile) -> None:
    text = """\
        #ifndef ENTRIES
        #define ENTRIES 8
        #endif
        #ifdef VARIANT_RAW_TP
        BPF_ARRAY(raw, u64, ENTRIES);
        #else
        BPF_ARRAY(other, u64, ENTRIES);
        #endif
        int on_raw(void *ctx) { return 0; }
    """
    assert [(m.name, m.max_entries) for m in compile_text(text).maps] == [("other", 8)]
    made = compile_text(text, variant="raw-tp", defines={"ENTRIES": 32})
    assert [(m.name, m.max_entries) for m in made.maps] == [("raw", 32)]


def test_a_define_that_would_have_no_effect_is_an_error(compile_text: Compile) -> None:
    text = "BPF_HASH(h, u32, u64, 8);\n#define ENTRIES 8\nint on_raw(void *ctx) { return ENTRIES; }\n"
    error = refused(compile_text, text, defines={"ENTRIES": 32})
    assert error.text == (
        "compile sends.c:2:9: the program defines ENTRIES itself, so `defines:` would have no effect on it "
        "(put #ifndef ENTRIES and #endif around it)"
    )


def test_a_program_may_name_kernel_headers(compile_text: Compile) -> None:
    text = """\
        #include <net/sock.h>
        #include <linux/sched.h>
        #include <bcc/proto.h>
        int on_kprobe(struct pt_regs *ctx, struct sock *sk)
        {
            struct task_struct *task = (struct task_struct *)bpf_get_current_task();

            return ntohs(sk->__sk_common.skc_dport) == 80 && task->mm->owner->pid == EAGAIN + TASK_COMM_LEN;
        }
    """
    assert [f.name for f in compile_text(text).functions] == ["on_kprobe"]


def with_other_types(trees: Path, tmp_path: Path, old: str, new: str) -> Path:
    """Return a copy of this host's header tree with one text of the types changed ("$": added at the end)."""
    doctored = tmp_path / "headers"
    doctored.mkdir(0o700)
    tree = headers.source_tree(HOST, trees)
    assert tree
    shutil.copytree(tree, doctored / tree.name)
    vmlinux = doctored / tree.name / "include/vmlinux.h"
    text = vmlinux.read_text()
    if old == "$":
        text += new
    else:
        assert text.count("\n" + old) == 1
        text = text.replace("\n" + old, "\n" + new)
    vmlinux.write_text(text)
    sizes = vmlinux.parents[1] / "sizes"
    size = vmlinux.stat().st_size
    sizes.write_text(re.sub(r"(?m)^\d+ include/vmlinux\.h$", f"{size} include/vmlinux.h", sizes.read_text()))
    return doctored


def test_a_layout_that_clang_gets_wrong_is_refused(compile_text: Compile, trees: Path, tmp_path: Path) -> None:
    compile_text(SENDS)
    doctored = with_other_types(trees, tmp_path, "struct sock_common {\n", "struct sock_common {\n\tlong doctored;\n")
    error = refused(compile_text, SENDS, trees=doctored)
    assert error.reason is Reason.LAYOUT
    assert re.match(r"compile layout of struct sock(_common)?: clang and BTF disagree on (its size|\w+): ", error.text)
    compile_text("int on_raw(void *ctx) { return 0; }\n", trees=doctored)  # reads no struct, so it is not its concern


def test_members_behind_a_named_pointer_are_guarded(compile_text: Compile, trees: Path, tmp_path: Path) -> None:
    text = """\
        int on_raw(struct bpf_raw_tracepoint_args *ctx)
        {
            struct sock *sk = (struct sock *)ctx->args[0];

            return sk->sk_socket->%s;
        }
    """
    compile_text(text % "type")
    doctored = with_other_types(trees, tmp_path, "struct socket {\n", "struct socket {\n\tlong doctored;\n")
    error = refused(compile_text, text % "type", trees=doctored)
    assert error.text.startswith("compile layout of struct socket: clang and BTF disagree on ")


def test_only_the_types_that_a_program_needs_are_compiled(compile_text: Compile, trees: Path, tmp_path: Path) -> None:
    made = compile_text(SENDS)
    doctored = with_other_types(trees, tmp_path, "$", '\n\n#error "the whole header"\n')
    assert compile_text(SENDS, trees=doctored).functions == made.functions
    error = refused(compile_text, SENDS.replace("skc_family", "no_such_member"), trees=doctored)
    assert "the whole header" in error.text, "what clang says of a mistake must be said of the whole header"


def test_a_type_whose_name_is_pasted_together_is_found(compile_text: Compile) -> None:
    text = """\
        #define KERNEL(name) struct so##name
        int on_raw(struct bpf_raw_tracepoint_args *ctx)
        {
            KERNEL(ck) *sk = (KERNEL(ck) *)ctx->args[0];

            return sk->__sk_common.skc_family;
        }
    """
    assert compile_text(text).functions == compile_text(text.replace("so##name", "sock")).functions


def test_another_kernel_gets_the_same_from_the_same_types(compile_text: Compile, tmp_path: Path) -> None:
    copy = tmp_path / "btf-of-another-kernel"
    shutil.copyfile(HOST.btf_path, copy)
    other = target.Target(copy, "6.1.300-56-amd64", HOST.arch, file_sha256(copy))
    version = """\
        BPF_ARRAY(patch, u64, LINUX_VERSION_CODE - KERNEL_VERSION(6, 1, 0));
        int on_raw(void *ctx) { return 0; }
    """
    assert other.btf_sha256 == HOST.btf_sha256
    assert compile_text(SENDS, to=other).functions == compile_text(SENDS).functions
    made = compile_text(version, to=other)
    assert (made.cache_key.release, made.maps[0].max_entries) == ("6.1.300-56-amd64", 255)


def test_another_machine_reads_other_registers(compile_text: Compile) -> None:
    text = "BPF_HASH(h, u32, u64, 8);\nint on_raw(struct bpf_raw_tracepoint_args *ctx) { return 0; }\n"
    arm = replace(HOST, arch="aarch64")
    assert compile_text(text, to=arm).arch == "aarch64"
    registers = "int on_kprobe(struct pt_regs *ctx) { return %s; }\n"
    assert compile_text(registers % "ctx->di").functions
    # This host's struct pt_regs has no regs[]: the text for arm64 asks for it, so ARCH reached bcc.
    error = refused(compile_text, registers % "PT_REGS_PARM1(ctx)", to=arm)
    assert "no member named 'regs' in 'struct pt_regs'" in error.text
    error = refused(compile_text, text, to=replace(HOST, arch="riscv64"))
    assert (error.reason, error.text) == (
        Reason.UNSUPPORTED,
        "compile for riscv64: only x86_64 and aarch64 are known",
    )


def test_tracepoint_formats_are_not_taken_from_the_wrong_kernel(compile_text: Compile) -> None:
    error = refused(
        compile_text,
        "\nTRACEPOINT_PROBE(sched, sched_switch) { return 0; }\n",
        to=replace(HOST, release="6.1.0-56-amd64"),
    )
    assert error.reason is Reason.UNSUPPORTED
    assert error.text.startswith("compile sends.c:2: TRACEPOINT_PROBE() takes the format from the running kernel")


def test_no_btf_and_no_headers_say_what_to_install(compile_text: Compile, tmp_path: Path) -> None:
    text = "int on_raw(void *ctx) { return 0; }\n"
    error = refused(compile_text, text, to=replace(HOST, btf_path=tmp_path / "none", btf_sha256=""))
    assert error.text == (
        f"find kernel types: there is no {tmp_path}/none (CONFIG_DEBUG_INFO_BTF is off) and no header package for "
        f"{HOST.release} (Debian and Ubuntu: apt-get install linux-headers-{HOST.release})"
    )
    error = refused(compile_text, text, to=replace(HOST, btf_path=tmp_path / "none", release="5.10.0-1-amd64"))
    assert error.text == f"read BTF {tmp_path}/none: no such file"
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"garbage")
    error = refused(compile_text, text, to=replace(HOST, btf_path=garbage, btf_sha256=file_sha256(garbage)))
    assert error.text.endswith(f"read BTF {garbage}: not a BTF file")


def test_a_host_without_bcc_is_told_what_to_install(compile_text: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "dist-packages" not in entry])
    error = refused(compile_text, "int on_raw(void *ctx) { return 0; }\n")
    assert (error.reason, error.text) == (
        Reason.BCC,
        "compile: bcc is not installed (Debian and Ubuntu: apt-get install python3-bpfcc)",
    )


def test_an_include_stays_inside_the_tree(compile_text: Compile, tmp_path: Path) -> None:
    text = "#include <../../../../escaped.h>\n#include <x/../../escaped.h>\nint on_raw(void *ctx) { return 0; }\n"
    tree = headers.source_tree(HOST, tmp_path / "headers")
    assert tree
    headers.add_included(tree, text)
    assert [str(path.relative_to(tmp_path / "headers")) for path in tmp_path.rglob("escaped.h")] == [
        f"{tree.name}/include/escaped.h"
    ]


def test_a_tree_that_others_may_write_is_not_used(compile_text: Compile, tmp_path: Path) -> None:
    shared = tmp_path / "headers"
    shared.mkdir()
    shared.chmod(0o777)
    error = refused(compile_text, "int on_raw(void *ctx) { return 0; }\n", trees=shared)
    assert error.text == f"use {shared}: it must belong to uid {os.geteuid()} and be writable by nobody else"


@pytest.mark.parametrize("name", ["include/vmlinux.h", "types.json", "sizes"])
def test_a_damaged_tree_is_made_again(tmp_path: Path, name: str) -> None:
    tree = headers.source_tree(HOST, tmp_path / "headers")
    assert tree
    whole = (tree / name).read_bytes()
    for left in (0, len(whole) // 2):
        os.truncate(tree / name, left)
        assert headers.source_tree(HOST, tmp_path / "headers") == tree
        assert (tree / name).read_bytes() == whole


def test_where_headers_cannot_be_kept_it_is_said_and_it_compiles(compile_text: Compile, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with capture_logs() as said:
        made = compile_text(SENDS, trees=tmp_path / "file/headers")
    assert made.functions == compile_text(SENDS).functions
    assert [line["error"] for line in said if line["log_level"] == "warning"] == [
        f"make kernel headers in {tmp_path}/file/headers: Not a directory "
        "(--cache.dir: a directory that this user can write to)"
    ]


def test_where_no_temporary_directory_can_be_had_it_compiles(
    compile_text: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's root may be read-only, with the cache on a volume."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert compile_text(SENDS).functions


def test_loaders_at_once_share_one_tree(tmp_path: Path) -> None:
    children = [fork(lambda: headers.source_tree(HOST, tmp_path / "headers")) for _ in range(4)]
    assert [reap(child) for child in children] == [0] * 4
    (tree,) = (tmp_path / "headers").glob("*-*")
    assert (tree / "include/vmlinux.h").stat().st_size > 1_000_000


def test_an_artifact_survives_the_cache(compile_text: Compile, tmp_path: Path) -> None:
    made = compile_text(SENDS)
    cache = Cache(tmp_path / "cache")
    cache.put(made)
    assert cache.get(made.key, compiler.bcc_version()) == made


def test_a_warm_start_maps_no_llvm(compile_text: Compile, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    made = compile_text(SENDS)
    cache.put(made)
    code = f"""\
import sys
from pathlib import Path
from exporter.loading import load_program
from exporter.loading.compiling import compiler
from exporter.loading.artifact import Cache
assert Cache(Path({str(cache.directory)!r})).get({made.key!r}, compiler.bcc_version())
assert "bcc" not in sys.modules
maps = Path("/proc/self/maps").read_text()
assert "LLVM" not in maps and "libbcc" not in maps
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_a_killed_compiler_is_a_reason_of_its_own(compile_text: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "from_clang", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    error = refused(compile_text, "syntax error\n")  # the child is killed as it would speak
    assert (error.reason, error.text) == (Reason.KILLED, "compile: the compiler was killed (out of memory?)")
