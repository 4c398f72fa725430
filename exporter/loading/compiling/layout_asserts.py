"""The C text of a program -> static asserts that clang lays out the kernel's structs as BTF says.

bcc has no CO-RE relocation: offsets are fixed when it compiles. A struct that libbpf's C text or clang gets wrong
(packed unions in 6.12, one-byte enums with older dumpers, -fms-extensions from 7.x on) would be read at wrong offsets
without an error. So every struct that a program names is asserted, with those that it reaches by members it names.
"""

from __future__ import annotations

import re

from exporter.kernel.btf import KernelBtf, StructMember

MARK = "layout of "  # begins the message of every assert

_NAMED = re.compile(r"\b(struct|union)\s+(\w+)")
_WORD = re.compile(r"\b[A-Za-z_]\w*")
_DEFINED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)


def asserts(text: str, btf: KernelBtf, ambiguous: frozenset[str]) -> str:
    """Return the asserts as C text, to be compiled behind the program; "" if the program names no struct of the kernel.

    text       of the program, without comments
    ambiguous  names of several structs, which are left out: libbpf chooses which of them has the plain name
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
