"""Lint: map keys and values with uninitialised members or padding, found in the C text without a compiler.

A map compares keys byte by byte, padding included, so bytes that happen to be on the stack make several entries of one
key. The verifier refuses that before 6.3 (6715df8d5d24), and allows it to root from then on. `= {}` writes every byte;
an initialiser that names members makes clang write these members and not the padding between them.

Only certain cases are reported: a variable whose address was passed to another function before, or whose type the text
does not define, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SIZES = {
    **dict.fromkeys(("char", "signed char", "unsigned char", "bool", "_Bool"), 1),
    **dict.fromkeys(("u8", "s8", "__u8", "__s8", "uint8_t", "int8_t"), 1),
    **dict.fromkeys(("short", "unsigned short", "u16", "s16", "__u16", "__s16", "uint16_t", "int16_t"), 2),
    **dict.fromkeys(("__be16", "__le16", "__sum16"), 2),
    **dict.fromkeys(("int", "unsigned", "unsigned int", "u32", "s32", "__u32", "__s32", "uint32_t", "int32_t"), 4),
    **dict.fromkeys(("__be32", "__le32", "__wsum", "pid_t", "uid_t", "gid_t", "dev_t"), 4),
    **dict.fromkeys(("long", "unsigned long", "long long", "unsigned long long", "size_t", "ssize_t"), 8),
    **dict.fromkeys(("u64", "s64", "__u64", "__s64", "uint64_t", "int64_t", "__be64", "__le64", "sector_t"), 8),
}
_NUMBERS = {"TASK_COMM_LEN": 16}

_PREPROCESSOR = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)
_DEFINED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(\d+)[ \t]*$", re.MULTILINE)
_STRUCT = re.compile(
    r"\b(?P<typedef>typedef\s+)?struct\s*(?P<tag>\w*)\s*(?P<packed>__packed\s*|__attribute__\s*\(\(packed\)\)\s*)?\{"
)
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_DECLARED = re.compile(
    r"\s*(?:(?:const|volatile|register)\s+)*"
    r"(?P<type>struct\s+\w+|(?:(?:unsigned|signed|long|short|int|char)\s+)*[A-Za-z_]\w*)\s+(?P<first>[A-Za-z_*])"
)  # fmt: skip
_USE = re.compile(
    r"\b(?P<map>\w+)\s*\.\s*(?P<method>lookup|lookup_or_try_init|lookup_or_init|update|insert|delete)\s*\("
)
_CONSTANT = re.compile(r"(?:\.\s*\w+\s*=|0x[0-9a-fA-F]+|\d+|[A-Z][A-Z0-9_]*|[\s{},+-])*")


@dataclass(frozen=True, slots=True)
class _Layout:
    """A struct as far as the text defines it. One member of each group in `members` must be written (a union is one
    group); `padding` is "" where there is none or the sizes are not known (size 0)."""

    size: int
    align: int
    members: tuple[frozenset[str], ...]
    padding: str


_UNKNOWN = _Layout(0, 1, (), "")


def findings(code: str) -> list[tuple[int, str]]:
    """Return (offset, what is wrong and what to write) for each; `code` has no comments and literals."""
    numbers = {**_NUMBERS, **{name: int(value) for name, value in _DEFINED.findall(code)}}
    plain = _PREPROCESSOR.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), code)
    structs = _structs(plain, numbers)
    variables = [variable for start, end in _bodies(plain) for variable in _variables(plain, start, end, structs)]
    return [(variable.offset, text) for variable in variables if (text := _wrong(plain, variable, structs))]


@dataclass(frozen=True, slots=True)
class _Variable:
    """A local variable.

    initial   text of its initialiser, "" without one
    offset    where its declaration begins
    declared  where the declaration ends
    gone      where its block ends
    """

    type: str
    name: str
    initial: str
    offset: int
    declared: int
    gone: int


def _wrong(code: str, variable: _Variable, structs: dict[str, _Layout]) -> str:
    """Return what is wrong with a variable; "" if nothing is."""
    layout = structs.get(variable.type)
    if variable.initial and not (layout and layout.padding and not _CONSTANT.fullmatch(variable.initial)):
        return ""
    scope = code[variable.declared : variable.gone]
    use = _first_use(scope, variable.name)
    if use is None:
        return ""
    at, called = use
    before = scope[:at]
    name = re.escape(variable.name)
    if re.search(rf"&\s*{name}\b(?!\s*[.\[])|(?<![\w.>]){name}\s*=(?!=)", before):
        return ""  # written as a whole, or its address was passed on
    if layout is None:
        if re.search(rf"\b{name}\b", before):
            return ""
        return (
            f"{variable.type} {variable.name} goes into {called}() before it was written"
            f" (write {variable.type} {variable.name} = 0;)"
        )
    missing = [group for group in layout.members if not _mentioned(name, group, before)]
    if missing and not variable.initial:
        what = "its member " + ", ".join(" or ".join(sorted(group)) for group in missing)
    elif layout.padding:
        what = layout.padding
    else:
        return ""
    return (
        f"{variable.type} {variable.name} goes into {called}() with bytes that were not written: {what}"
        f" (write {variable.type} {variable.name} = {{}}; and then its members)"
    )


def _mentioned(name: str, group: frozenset[str], text: str) -> bool:
    return any(re.search(rf"\b{name}\s*\.\s*{re.escape(member)}\b", text) for member in group)


def _first_use(scope: str, name: str) -> tuple[int, str] | None:
    """Return where a method of a map first gets the variable's address, and "map.method"."""
    for match in _USE.finditer(scope):
        end = _closing(scope, match.end() - 1)
        for argument in _split(scope[match.end() : end]):
            if re.fullmatch(rf"(?:\([^()]*\)\s*)?&\s*{re.escape(name)}", argument.strip()):
                return match.start(), f"{match['map']}.{match['method']}"
    return None


def _variables(code: str, start: int, end: int, structs: dict[str, _Layout]) -> Iterator[_Variable]:
    """Yield local variables of known types, except for pointers and arrays."""
    for match in re.finditer(r"[;{}]", code[start:end]):
        at = start + match.end()
        declared = _DECLARED.match(code, at, end)
        if declared is None:
            continue
        spelled = " ".join(declared["type"].split())
        if spelled not in structs and spelled not in _SIZES:
            continue
        stop = _statement_end(code, declared.start("first"), end)
        block = _block_end(code, stop, end)
        for piece in _split(code[declared.start("first") : stop]):
            name, equals, initial = piece.partition("=")
            if re.fullmatch(r"\s*\w+\s*", name):
                yield _Variable(
                    spelled, name.strip(), initial.strip() if equals else "", declared.start("type"), stop, block
                )


def _bodies(code: str) -> Iterator[tuple[int, int]]:
    """Yield (offset of the opening brace, offset of the closing one) of every function."""
    at = 0
    while (brace := code.find("{", at)) >= 0:
        end = _closing(code, brace)
        if code[:brace].rstrip().endswith(")"):
            yield brace, end
        at = end + 1


def _structs(code: str, numbers: dict[str, int]) -> dict[str, _Layout]:
    """Return the layouts of the structs that the text defines, by "struct tag" and by typedef."""
    found: dict[str, _Layout] = {}
    for match in _STRUCT.finditer(code):
        end = _closing(code, match.end() - 1)
        behind = code[end + 1 : code.find(";", end)]
        layout = _layout(code[match.end() : end], found, numbers)
        if match["packed"] or "packed" in behind:
            layout = _Layout(layout.size, layout.align, layout.members, "")
        elif "aligned" in behind:
            layout = _Layout(0, 1, layout.members, "")
        if match["tag"]:
            found[f"struct {match['tag']}"] = layout
        if match["typedef"] and re.fullmatch(r"\s*\w+\s*", behind):
            found[behind.strip()] = layout
    return found


def _layout(body: str, structs: dict[str, _Layout], numbers: dict[str, int]) -> _Layout:
    """Return the layout of the members between the braces of a struct."""
    offset, align, padding, last, known = 0, 1, "", "", True
    members: list[frozenset[str]] = []
    for size, boundary, groups in _members(body, structs, numbers):
        members += groups
        known = known and size > 0
        if not known:
            continue
        if gap := -offset % boundary:
            padding = padding or f"{gap} of padding behind {last}"
        offset += gap + size
        align = max(align, boundary)
        last = sorted(groups[0])[0] if groups else last
    if not known:
        return _Layout(0, 1, tuple(members), "")
    if gap := -offset % align:
        padding = padding or f"{gap} of padding behind {last}"
    return _Layout(offset + gap, align, tuple(members), padding)


def _members(
    body: str, structs: dict[str, _Layout], numbers: dict[str, int]
) -> Iterator[tuple[int, int, list[frozenset[str]]]]:
    """Yield (size, alignment, groups of names) of each member; the size is 0 where it is not known."""
    for declaration in _split(body, ";"):
        text = declaration.strip()
        if not text:
            continue
        if inner := re.match(r"(struct|union)\s*\w*\s*\{", text):
            end = _closing(text, inner.end() - 1)
            layout = _layout(text[inner.end() : end], structs, numbers)
            names = re.findall(r"\w+", text[end + 1 :])
            if names:  # an inner struct with a name: a write to any of its members counts for all
                groups = [frozenset(names[:1])]
            elif inner[1] == "union":
                groups = [frozenset().union(*layout.members)] if layout.members else []
            else:
                groups = list(layout.members)
            sized = inner[1] == "struct" and not names and not layout.padding
            yield (layout.size if sized else 0), layout.align, groups
            continue
        match = re.match(
            r"(?:const\s+|volatile\s+)*(?P<type>(?:struct|union|enum)\s+\w+|(?:(?:unsigned|signed|long|short|int|char)\s+)*\w+)\b",
            text,
        )
        if match is None:
            yield 0, 1, []
            continue
        spelled = " ".join(match["type"].split())
        size, align = _size(spelled, structs)
        for declarator in _split(text[match.end() :]):
            parts = re.fullmatch(r"\s*(?P<pointer>\**)\s*(?P<name>\w+)\s*(?P<arrays>(?:\[[^\]]*\]\s*)*)", declarator)
            if parts is None:  # a bit-field, a function pointer
                name = re.match(r"\s*\w+", declarator)
                yield 0, 1, [frozenset({name[0].strip()})] if name else []
                continue
            one, boundary = (8, 8) if parts["pointer"] else (size, align)
            for length in re.findall(r"\[([^\]]*)\]", parts["arrays"]):
                one *= numbers.get(length.strip(), 0) or (int(length) if length.strip().isdigit() else 0)
            yield one, boundary, [frozenset({parts["name"]})]


def _size(spelled: str, structs: dict[str, _Layout]) -> tuple[int, int]:
    """Return (size, alignment), (0, 1) where they are not known. A struct with padding has no known size, so that the
    struct itself is reported and not every struct that contains it."""
    if layout := structs.get(spelled):
        return (layout.size, layout.align) if not layout.padding else (0, 1)
    if spelled.startswith("enum "):
        return 4, 4
    size = _SIZES.get(spelled, 0)
    return size, size or 1


def _split(text: str, separator: str = ",") -> list[str]:
    """Return the parts between separators outside brackets."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == separator and not depth:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _closing(text: str, at: int) -> int:
    """Return the offset of the bracket that closes the one at `at`; the end of the text where none does."""
    opening, closing, depth = text[at], _BRACKETS[text[at]], 0
    for match in re.compile(f"[{re.escape(opening + closing)}]").finditer(text, at):
        depth += 1 if match[0] == opening else -1
        if not depth:
            return match.start()
    return len(text)


def _statement_end(code: str, at: int, end: int) -> int:
    """Return the offset of the `;` that ends the statement."""
    while at < end and code[at] != ";":
        at = _closing(code, at) if code[at] in _BRACKETS else at
        at += 1
    return min(at, end)


def _block_end(code: str, at: int, end: int) -> int:
    """Return the offset of the brace that closes the block around `at`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, at, end):
        depth += 1 if match[0] == "{" else -1
        if depth < 0:
            return match.start()
    return end
