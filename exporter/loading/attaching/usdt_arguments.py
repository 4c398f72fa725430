"""Arguments of USDT probes as assembler operands ("-4@-20(%rbp)") -> C functions that read them.

bcc turns `bpf_usdt_readarg(2, ctx, &x)` in a function on_request into `_bpf_readarg_on_request_2(ctx, &x, sizeof(x))`
and does not define that function; this module writes it. The function converts the argument to the size of `x`, as C
does, and returns 0; where the argument cannot be read it returns -1 and leaves `x` alone.

Syntax: https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation and gas's of each architecture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Code is mapped page by page, so these bits of an address are the same in the file and in every process.
_PAGE = 0xFFF

_ARGUMENT = re.compile(r"(?P<size>-?[0-9]+)(?P<float>f)?@(?P<operand>\[[^\]]*\]|\S+)")
_NUMBER = r"[-+]?(?:0x[0-9a-fA-F]+|[0-9]+)"

# Registers by their names in struct pt_regs (arch/x86/include/asm/ptrace.h).
_X86_WIDE = {"rax": "ax", "rbx": "bx", "rcx": "cx", "rdx": "dx", "rsi": "si", "rdi": "di", "rbp": "bp", "rsp": "sp"}
_X86 = {
    **_X86_WIDE,
    "rip": "ip",
    **{"e" + field: field for field in _X86_WIDE.values()},
    **{field: field for field in _X86_WIDE.values()},
    **{field[0] + "l": field for field in ("ax", "bx", "cx", "dx")},
    **{field + "l": field for field in ("si", "di", "bp", "sp")},
    **{f"r{n}{part}": f"r{n}" for n in range(8, 16) for part in ("", "d", "w", "b")},
}
_X86_MEMORY = re.compile(
    rf"(?P<symbol>[A-Za-z_.$][\w.$]*)?(?P<offset>{_NUMBER})?"
    r"\((?P<base>%\w+)?(?:,(?P<index>%\w+)(?:,(?P<scale>[1248]))?)?\)"
)
_ARM_MEMORY = re.compile(
    rf"\[(?P<base>\w+)(?:, *(?:#?(?P<offset>{_NUMBER})|(?P<index>x[0-9]+)(?:, *lsl +#?(?P<shift>[0-3]))?))?\]"
)


class UnreadableError(Exception):
    """An operand that no C text is written for; the message names it."""


@dataclass(frozen=True, slots=True)
class Location:
    """One site of a probe.

    address    in the file
    arguments  of its note
    variable   name -> address in the file of a variable, None if the file has none of that name
    """

    address: int
    arguments: str
    variable: Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class _Operand:
    """An argument of `size` bytes; `value` is a C expression of it, or of its address if `memory` is True."""

    size: int
    signed: bool
    value: str
    memory: bool

    @property
    def type(self) -> str:
        return f"{'s' if self.signed else 'u'}{self.size * 8}"


def used(function: str, text: str) -> list[int]:
    """Return the numbers (from 1) of the arguments that a function of the C text (without comments) reads."""
    start = re.search(rf"\b{re.escape(function)}\s*\([^;{{]*\{{", text)
    body = _braced(text, start.end()) if start else text
    return sorted({int(number) for number in re.findall(r"\bbpf_usdt_readarg(?:_p)?\s*\(\s*([0-9]+)", body)})


def reader(function: str, number: int, locations: Sequence[Location], machine: str) -> str:
    """Return the C function that reads one argument at any of the locations. Without locations the probe is absent, and
    the function returns -1. UnreadableError."""
    cases: dict[_Operand, list[int]] = {}
    for location in locations:
        found = _ARGUMENT.findall(location.arguments)
        if number < 1 or number > len(found):
            raise UnreadableError(f"{function} reads argument {number}, and the probe has {len(found) or 'none'}")
        cases.setdefault(_operand(found[number - 1], location, machine), []).append(location.address & _PAGE)
    if len(offsets := [offset for at in cases.values() for offset in set(at)]) != len(set(offsets)):
        raise UnreadableError(f"argument {number} is in another register at two sites that cannot be told apart")
    lines = [
        f"static __always_inline int _bpf_readarg_{function}_{number}"
        "(struct pt_regs *ctx, void *dest, unsigned long len)",
        "{",
        "	u64 value = 0;",
    ]
    if not cases:
        lines += ["	return -1;", "}"]
        return "\n".join(lines) + "\n"
    if len(cases) == 1:
        lines += _load(next(iter(cases)), 0)
    else:
        lines.append(f"	switch (PT_REGS_IP(ctx) & 0x{_PAGE:x}) {{")
        for index, (operand, at) in enumerate(cases.items()):
            lines += [f"	case 0x{offset:x}:" for offset in sorted(set(at))]
            lines += [*_load(operand, index), "	break;"]
        lines += ["	default:", "		return -1;", "	}"]
    lines += [
        *(f"	if (len == {size // 8}) *(u{size} *)dest = value;" for size in (8, 16, 32, 64)),
        "	return len == 1 || len == 2 || len == 4 || len == 8 ? 0 : -1;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _load(operand: _Operand, index: int) -> list[str]:
    # A different asm text in each branch keeps clang from merging two loads into one at a computed offset of ctx.
    barrier = f'	__asm__ __volatile__("# {index}" : "+r"(value) : : "memory");'
    if not operand.memory:
        return [f"	value = {operand.value};", barrier, f"	value = (s64)({operand.type})value;"]
    return [
        f"	value = {operand.value};",
        barrier,
        f"	{{ {operand.type} here = 0;",
        "	if (bpf_probe_read_user(&here, sizeof(here), (void *)value)) return -1;",
        "	value = (s64)here; }",
    ]


def _operand(found: tuple[str, str, str], location: Location, machine: str) -> _Operand:
    size, floating, text = found
    if floating or abs(int(size)) not in (1, 2, 4, 8):
        raise UnreadableError(f"{size}{floating}@{text} is {'a floating number' if floating else 'no integer'}")
    value, memory = (_on_x86 if machine == "x86_64" else _on_arm64)(text, location)
    return _Operand(abs(int(size)), size.startswith("-"), value, memory)


def _on_x86(text: str, location: Location) -> tuple[str, bool]:
    """Return a C expression, and True if it is the address of the argument."""
    if text.startswith("$") and re.fullmatch(_NUMBER, text[1:]):
        return f"(s64){text[1:]}", False
    if text.startswith("%") and text[1:] in _X86:
        return _register(text), False
    match = _X86_MEMORY.fullmatch(text)
    if match is None:
        raise UnreadableError(f"{text} is no operand that is read here")
    parts = [_register(match["base"])] if match["base"] else []
    if match["index"]:
        parts.append(f"{_register(match['index'])} * {match['scale'] or 1}")
    if match["offset"]:
        parts.append(f"(s64){match['offset']}")
    if match["symbol"]:
        address = location.variable(match["symbol"])
        if address is None or match["base"] != "%rip":
            raise UnreadableError(f"{text} names a variable that the file's symbols do not have")
        parts.append(f"(s64){address - location.address}")  # their distance is the same wherever the file is loaded
    return " + ".join(parts), True


def _register(text: str) -> str:
    name = text.removeprefix("%")
    if name not in _X86:
        raise UnreadableError(f"%{name} is no register that is read here")
    return f"ctx->{_X86[name]}"


def _on_arm64(text: str, _location: Location) -> tuple[str, bool]:
    if re.fullmatch(rf"#?{_NUMBER}", text):
        return f"(s64){text.lstrip('#')}", False
    match = _ARM_MEMORY.fullmatch(text)
    if match is None:
        return _arm_register(text), False
    parts = [_arm_register(match["base"])]
    if match["offset"]:
        parts.append(f"(s64){match['offset']}")
    if match["index"]:
        parts.append(f"({_arm_register(match['index'])} << {match['shift'] or 0})")
    return " + ".join(parts), True


def _arm_register(text: str) -> str:
    if text == "sp":
        return "ctx->sp"
    number = {"fp": "29", "lr": "30"}.get(text, text[1:])
    if (text[:1] in "xw" or text in ("fp", "lr")) and number.isdigit() and int(number) <= 30:
        return f"ctx->regs[{number}]"
    raise UnreadableError(f"{text} is no register that is read here")


def _braced(text: str, start: int) -> str:
    """Return the text from `start`, which is behind a brace, to the brace that closes it."""
    depth = 1
    for match in re.finditer(r"[{}]", text[start:]):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return text[start : start + match.start()]
    return text[start:]
