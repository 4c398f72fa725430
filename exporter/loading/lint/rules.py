"""A program's C text -> lines that compile under bcc and then count wrong, and what to write instead.

It needs no bcc, so that `check` finds them on every host.
"""

from __future__ import annotations

import re

from exporter.loading.compiling.source import DRAINED, LOST, position, without_comments
from exporter.loading.lint import array_reads, uninitialized
from exporter.spec import ProgramSpec

# What the text must not have -> what is wrong with it, and what to write. {} is the call or the macro.
_BANNED = {
    r"\.\s*(?:atomic_)?increment\s*\(": "{} loses counts on several CPUs and inserts nothing into per-CPU and LRU maps"
    " (write add(MAP.lookup_or_try_init(&key, &zero), 1, LOST(MAP)))",
    r"\.\s*lookup_or_init\s*\(": "{} ends the program without a word when the map is full"
    " (write MAP.lookup_or_try_init(&key, &zero) and count NULL with lost(LOST(MAP)))",
    r"\bbpf_log2l?\s*\(": "{} is no slot: 2^k falls into the bucket above le = 2^k (write exp2_slot(value))",
    r"\bBPF_(?:QUEUESTACK|TABLE)_PINNED\b": "{} leaves a map behind in bpffs while compiling"
    " (maps stay with the exporter; write BPF_TABLE())",
    r"\bBPF_(?:QUEUESTACK|TABLE)_(?:PUBLIC|SHARED)\b": "{} shares a map with other modules of one process, and each"
    " program here has its own (write BPF_TABLE())",
}
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)
_FILE_VARIABLE = re.compile(
    r"(?:^|(?<=[;}]))\s*(?P<qualifiers>(?:(?:static|const|volatile)\s+)*)"
    r"(?P<type>(?:struct|union|enum)\s+\w+|(?!(?:struct|union|enum|typedef|extern)\b)(?:(?:unsigned|signed|long|short|int|char)\s+)*\w+)\s+\**\s*"
    r"(?P<name>\w+)\s*(?:\[[^\]]*\]\s*)*(?:=[^;]*)?;"
)
_QUOTED_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*\"([^\"\n]+)\"", re.MULTILINE)


def findings(program: ProgramSpec) -> list[str]:
    """Return "file:line: what is wrong (what to write)" for each, in the order of the text."""
    code = without_comments(program.text)
    found: list[tuple[int, str]] = []
    for pattern, text in _BANNED.items():
        for match in re.finditer(pattern, code):
            called = match[0].rstrip("( \t\n").replace(" ", "")
            found.append((match.start(), text.format(called + "()" if "(" in match[0] else called)))
    for match in _QUOTED_INCLUDE.finditer(program.text):
        if not code[match.start() : match.start(1)].strip():
            continue  # inside a comment
        found.append(
            (match.start(), f'#include "{match[1]}" is not found (bcc reads one text; put it into the program)')
        )
    names = set(re.findall(r"\w+", LOST.sub("", code)))  # a name that is only in LOST() is no map
    found += [
        (match.start(), f"LOST({match[1]}): the program has no map {match[1]!r} (name the map that was full)")
        for match in LOST.finditer(code)
        if match[1] not in names
    ]
    found += [
        (
            match.start(),
            f"DRAINED_HASH({match[1]}): nothing asks which half is live (write ODD({match[1]}) ? "
            f"{match[1]}_odd.lookup_or_try_init(&key, &zero) : {match[1]}.lookup_or_try_init(&key, &zero))",
        )
        for match in DRAINED.finditer(code)
        if not re.search(rf"\bODD\s*\(\s*{match[1]}\s*\)", code)
    ]
    found += _variables(code)
    found += uninitialized.findings(code)
    found += array_reads.findings(code)
    return [f"{position(program, offset)}: {text}" for offset, text in sorted(found)]


def _variables(code: str) -> list[tuple[int, str]]:
    """Return the variables of the file, except for constants, which the compiler may fold into the code."""
    bare = _outside_braces(_DIRECTIVE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), code))
    return [
        (
            match.start("qualifiers"),
            f"{match['name']} is a variable of the file, and bcc gives the kernel none"
            f" (write BPF_ARRAY({match['name']}, {match['type']}, 1) for what changes, `defines:` for what does not)",
        )
        for match in _FILE_VARIABLE.finditer(bare)
        if "const" not in match["qualifiers"] or "volatile" in match["qualifiers"]
    ]


def _outside_braces(code: str) -> str:
    """Return the text with everything between braces blanked, and the closing brace kept."""
    depth, characters = 0, []
    for character in code:
        depth += character == "{"
        characters.append(" " if depth and (character != "}" or depth > 1) else character)
        depth -= character == "}"
    return "".join(characters)
