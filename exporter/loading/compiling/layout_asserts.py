"""Static asserts that clang lays out the kernel's structs as BTF says.

bcc has no CO-RE relocation: offsets are fixed when it compiles. A struct that libbpf's C text or clang gets wrong
(packed unions in 6.12, one-byte enums with older dumpers, -fms-extensions from 7.x on) would be read at the wrong place
without a word. So every struct that a program names is asserted, with what it reaches through members that it names.
"""

from __future__ import annotations

import re

from exporter.kernel.btf import KernelBtf, StructMember

MARK = "layout of "  # begins the message of every assert, so that the compiler's output can be told apart

_NAMED = re.compile(r"\b(struct|union)\s+(\w+)")
_WORD = re.compile(r"\b[A-Za-z_]\w*")
_DEFINED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)


def asserts(text: str, btf: KernelBtf, ambiguous: frozenset[str]) -> str:
    """C text of the asserts for a program, to stand behind it; "" if it names no struct of the kernel.

    text       without comments
    ambiguous  structs of which there are several: which of them has the plain name is libbpf's choice; left out
    """
    words, macros = set(_WORD.findall(text)), set(_DEFINED.findall(text))
    waiting = [f"{keyword} {name}" for keyword, name in _NAMED.findall(text)]
    seen: set[str] = set(ambiguous)
    lines = []
    while waiting:
        tag = waiting.pop()
        if tag in seen or not btf.find_struct(tag):
            continue
        seen.add(tag)
        members = btf.struct_members(tag)
        lines.append(f'_Static_assert(sizeof({tag}) == {btf.struct_size(tag)}, "{MARK}{tag}: size");')
        lines += [_assert_member(tag, member) for member in members if not member.bits and member.name not in macros]
        waiting += [member.holds for member in members if member.holds]
        waiting += [member.points for member in members if member.points and member.name in words]
    return "\n".join(('#line 1 "layout guard"', *lines, "")) if lines else ""


def _assert_member(tag: str, member: StructMember) -> str:
    offset = member.offset // 8
    return f'_Static_assert(__builtin_offsetof({tag}, {member.name}) == {offset}, "{MARK}{tag}: {member.name}");'
