"""A program's C text -> the text and flags for the compiler, with #line so that errors have their positions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from exporter.spec import ProgramSpec, VariantSpec

_TOKENS = re.compile(
    r"""(?P<blank>//(?:[^\n\\]|\\.|\\\n)*|/\*.*?(?:\*/|\Z)|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""", re.DOTALL
)
LOST = re.compile(r"\bLOST\s*\(\s*(\w+)\s*\)")
DRAINED = re.compile(r"\bDRAINED_(?:PERCPU_)?HASH\s*\(\s*(\w+)\s*,")
_TRACEPOINT_PROBE = re.compile(r"\bTRACEPOINT_PROBE\s*\([^)]*\)")

DIALECT = (
    "-fms-extensions",  # 7.x kernels are built so: BTF has `struct socket_alloc;` as an anonymous member
    "-Wno-microsoft",
    "-Werror=missing-declarations",  # "declaration does not declare anything": such a member is dropped, offsets shift
    "-Werror=implicit-function-declaration",  # no such helper; else the verifier says so, obscurely
    "-Werror=int-conversion",  # a key given by value
    "-Werror=incompatible-pointer-types",  # a key or value of another type than the map's, read at the wrong size
)


@dataclass(frozen=True, slots=True)
class Source:
    """The input of the compiler.

    text     all of it: the enums of LOST() and ODD(), the shared header, the program
    flags    the dialect, -D for the defines and the variant
    lost     maps of LOST(), in the order of indices of the hidden map lost_updates
    drained  first maps of the pairs of DRAINED_HASH(), in the order of indices of drain_epochs
    """

    text: str
    flags: tuple[str, ...]
    lost: tuple[str, ...]
    drained: tuple[str, ...] = ()


def assemble(program: ProgramSpec, variant: VariantSpec, header_text: str) -> Source:
    """Return the input of the compiler for one variant, with this text in front of the program."""
    lost, drained = lost_maps(program), drained_maps(program)
    text = "".join(
        (
            _numbered("lost", lost, "LOST_UPDATES"),
            _numbered("drained", drained, "DRAINED_MAPS"),
            '#line 1 "exporter.h"\n',
            header_text if header_text.endswith("\n") else header_text + "\n",
            _line(program.line, program),
            _with_lines_after_tracepoint_probes(program),
            "\n",
        )
    )
    return Source(text, (*DIALECT, *flags(program, variant)), lost, drained)


def _numbered(prefix: str, names: tuple[str, ...], define: str) -> str:
    """Return an enum with a number for each map, "" without maps."""
    if not names:
        return ""
    return f"enum {{ {''.join(f'{prefix}_{name}, ' for name in names)}{prefix}_count }};\n#define {define} 1\n"


def flags(program: ProgramSpec, variant: VariantSpec) -> tuple[str, ...]:
    """Return -DNAME=VALUE for each define, and -DVARIANT_NAME=1 for a variant that has a name."""
    defines = [f"-D{name}={value}" for name, value in sorted(program.defines.items())]
    return (*defines, f"-D{variant_macro(variant.name)}=1") if variant.name else tuple(defines)


def variant_macro(name: str) -> str:
    """Return the macro of a variant: "VARIANT_RAW_TP" for "raw-tp"."""
    return "VARIANT_" + re.sub(r"[^A-Z0-9_]", "_", name.upper())


def lost_maps(program: ProgramSpec) -> tuple[str, ...]:
    """Return the names in LOST(name) of every variant, sorted. lint/rules.py and clang check that they are maps."""
    return tuple(sorted(set(LOST.findall(without_comments(program.text)))))


def drained_maps(program: ProgramSpec) -> tuple[str, ...]:
    """Return the names in DRAINED_HASH(name, ...) and DRAINED_PERCPU_HASH(name, ...) of every variant, sorted."""
    return tuple(sorted(set(DRAINED.findall(without_comments(program.text)))))


def without_comments(text: str) -> str:
    """Return the text with comments and literals blanked; every other character keeps its offset."""
    return _TOKENS.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def position(program: ProgramSpec, offset: int) -> str:
    """Return "file:line" of an offset in the program's text, in the file that has the text."""
    return f"{program.source}:{program.line + program.text.count(chr(10), 0, offset)}"


def _line(number: int, program: ProgramSpec) -> str:
    name = str(program.source).replace("\\", "\\\\").replace('"', '\\"')
    return f'#line {number} "{name}"\n'


def _with_lines_after_tracepoint_probes(program: ProgramSpec) -> str:
    """Return the text with #line behind each TRACEPOINT_PROBE, before which bcc inserts a struct of several lines."""
    pieces, at = [], 0
    for match in _TRACEPOINT_PROBE.finditer(without_comments(program.text)):
        end = program.text.find("\n", match.end()) + 1
        if not end:
            break
        number = program.line + program.text.count("\n", 0, end)
        pieces += [program.text[at:end], _line(number, program)]
        at = end
    return "".join((*pieces, program.text[at:]))
