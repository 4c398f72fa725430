"""Argument specifications of USDT probes, as compilers write them, into C."""

from __future__ import annotations

import pytest

from exporter.loading.attaching.usdt_arguments import Location, UnreadableError, reader, used


def place(arguments: str, address: int = 0x1234) -> Location:
    return Location(address, arguments, {"counter": 0x4010}.get)


def expression(arguments: str, machine: str = "x86_64", number: int = 1) -> str:
    """What the reader of one argument starts from: "ctx->di", or "*(s32 *)" and an address."""
    lines = reader("on_x", number, [place(arguments)], machine).splitlines()
    value = next(line for line in lines if "value = " in line and "u64" not in line).strip()
    text = value.removeprefix("value = ").rstrip(";")
    if any("bpf_probe_read_user" in line for line in lines):
        kind = next(line for line in lines if " here = 0" in line).split()[1]
        return f"*({kind} *)({text})"
    kind = next(line for line in lines if "(s64)(" in line).split("(s64)(")[1].split(")")[0]
    return f"({kind}){text}"


@pytest.mark.parametrize(
    ("arguments", "c"),
    [
        ("8@%rdi", "(u64)ctx->di"),
        ("-4@%eax", "(s32)ctx->ax"),
        ("-2@%si", "(s16)ctx->si"),
        ("1@%r8b", "(u8)ctx->r8"),
        ("-1@%dil", "(s8)ctx->di"),
        ("-4@$5", "(s32)(s64)5"),
        ("-4@$-0x10", "(s32)(s64)-0x10"),
        ("8@(%rsp)", "*(u64 *)(ctx->sp)"),
        ("-4@-20(%rbp)", "*(s32 *)(ctx->bp + (s64)-20)"),
        ("8@0x10(%rax,%rbx,8)", "*(u64 *)(ctx->ax + ctx->bx * 8 + (s64)0x10)"),
        ("8@(,%rbx,4)", "*(u64 *)(ctx->bx * 4)"),
        ("4@counter(%rip)", f"*(u32 *)(ctx->ip + (s64){0x4010 - 0x1234})"),
        ("4@counter+8(%rip)", f"*(u32 *)(ctx->ip + (s64)+8 + (s64){0x4010 - 0x1234})"),
    ],
)
def test_x86_operand(arguments: str, c: str) -> None:
    assert expression(arguments) == c


@pytest.mark.parametrize(
    ("arguments", "c"),
    [
        ("8@x0", "(u64)ctx->regs[0]"),
        ("-4@w29", "(s32)ctx->regs[29]"),
        ("-4@7", "(s32)(s64)7"),
        ("8@sp", "(u64)ctx->sp"),
        ("8@[sp]", "*(u64 *)(ctx->sp)"),
        ("-4@[sp, 60]", "*(s32 *)(ctx->sp + (s64)60)"),
        ("-4@[x3, -8]", "*(s32 *)(ctx->regs[3] + (s64)-8)"),
        ("8@[x1, x2, lsl 3]", "*(u64 *)(ctx->regs[1] + (ctx->regs[2] << 3))"),
    ],
)
def test_arm64_operand(arguments: str, c: str) -> None:
    assert expression(arguments, "aarch64") == c


@pytest.mark.parametrize(
    ("arguments", "machine"),
    [
        *(("8f@%xmm0", "x86_64"), ("16@%rax", "x86_64"), ("8@%fs:16", "x86_64"), ("8@nothing(%rip)", "x86_64")),
        *(("8@%ah", "x86_64"), ("8@d0", "aarch64"), ("8@x31", "aarch64"), ("8@[q0]", "aarch64")),
    ],
)
def test_operand_that_is_not_read_is_refused(arguments: str, machine: str) -> None:
    with pytest.raises(UnreadableError):
        reader("on_x", 1, [place(arguments)], machine)


def test_places_are_told_apart_by_where_they_are_in_their_page() -> None:
    text = reader("on_x", 1, [place("8@%rdi", 0x1234), place("-4@$1", 0x2234 + 8), place("8@%rdi", 0x5777)], "x86_64")
    assert "switch (PT_REGS_IP(ctx) & 0xfff)" in text
    assert [line.strip() for line in text.splitlines() if "case" in line] == [
        "case 0x234:",
        "case 0x777:",
        "case 0x23c:",
    ]


def test_places_that_agree_need_no_telling_apart() -> None:
    assert "switch" not in reader("on_x", 1, [place("8@%rdi", 0x1234), place("8@%rdi", 0x2234)], "x86_64")


def test_places_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UnreadableError, match="two sites that cannot be told apart"):
        reader("on_x", 1, [place("8@%rdi", 0x1234), place("8@%rsi", 0x2234)], "x86_64")


def test_an_argument_that_the_probe_lacks_is_refused() -> None:
    with pytest.raises(UnreadableError, match="on_x reads argument 3, and the probe has 2"):
        reader("on_x", 3, [place("8@%rdi 8@%rsi")], "x86_64")


def test_arguments_are_counted_though_arm64_writes_spaces_in_them() -> None:
    with pytest.raises(UnreadableError, match="on_x reads argument 4, and the probe has 3"):
        reader("on_x", 4, [place("-4@[sp, 60] 8@x0 -8@[x1, x2, lsl 3]")], "aarch64")


def test_only_arguments_that_the_function_reads_are_used() -> None:
    text = """
    static int helper(struct pt_regs *ctx);
    int on_x(struct pt_regs *ctx) { u64 a; if (1) { bpf_usdt_readarg(2, ctx, &a); } bpf_usdt_readarg_p(1, ctx, &a, 8); }
    int on_y(struct pt_regs *ctx) { u64 a; bpf_usdt_readarg(5, ctx, &a); }
    """
    assert (used("on_x", text), used("on_y", text), used("on_z", text)) == ([1, 2], [5], [1, 2, 5])
