"""The output of clang and LLVM -> one RefusedError with the cause and what would work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from exporter.loading.compiling import layout_asserts
from exporter.loading.refusal import RefusedError
from exporter.program import Reason

# ("struct x", name) -> members of the struct with similar names.
NearMembers = Callable[[str, str], list[str]]

_HEADER = re.compile(
    r"^(?P<where>[^\n]+?:\d+:\d+): (?P<level>fatal error|error|warning|note): (?P<what>.*)$", re.MULTILINE
)
_CARET = re.compile(r"[ \t~]*\^[ \t~^]*")
# The message in quotes until clang 15, after a colon from 16 on.
_LAYOUT = re.compile(rf"[\": ]{layout_asserts.MARK}(?P<tag>(?:struct|union) \w+): (?P<member>\w+)\"?$")
# Errors of LLVM's back end. Their lines are those of the text that bcc rewrote, so only the function is used.
_BACK_END = re.compile(
    r"^error: (?:\S+:\d+(?::\d+)?: )?(?:in function (?P<function>\w+) [^:]*: )?(?P<what>.*)$", re.MULTILINE
)
# LLVM aborts where it has no instruction for something. The position behind the last comma is in the C text.
_FATAL = re.compile(r"^LLVM ERROR: (?P<what>.*)$", re.MULTILINE)
_DIVISION = re.compile(r"^Error at line \d+: Unsupport signed division.*?(?P<where>[^\s,]+:\d+:\d+)", re.MULTILINE)
# bcc creates each map while it compiles; the text behind "error: " is strerror(3)'s.
_MAP = re.compile(r"^could not open bpf map: (?P<map>\w+)[^\n]*?, error: (?P<what>.*)$", re.MULTILINE)
_SHOWN = 3

# A message of clang, and what would work. {1} is the first group.
_NO_FUNCTION = "BTF has types but no inline functions: write what {1} does, or the right name of a helper"
_HINTS = (
    (
        r"use of undeclared identifier '([A-Z][A-Z0-9_]*)'$",
        "BTF has no macros of kernel headers: #define {1} here",
    ),
    (
        r"use of undeclared identifier '(\w+)'$",
        "declare it; of the kernel's names a program has types and enumerators, no variables",
    ),
    (r"implicit declaration of function '(\w+)'", _NO_FUNCTION),
    (r"call to undeclared function '(\w+)'", _NO_FUNCTION),
    (r"implicitly declaring library function '(mem\w+)'", "write __builtin_{1}, with a constant size"),
    (r"incomplete (?:definition of )?type '(?:struct|union) (\w+)'", "this kernel has no {1}, or only in a module"),
    (
        r"no member named '(\w+)' in 'struct \w+_table_t'",
        "a map has lookup, lookup_or_try_init, update, insert, delete",
    ),
    (r"integer to pointer conversion passing", "a map takes the address of its key: MAP.lookup(&key)"),
    (r"incompatible pointer types passing", "the map declares another type for its key or value"),
    (r"incompatible pointer types (?:initializing|assigning)", "the map declares another type for its value"),
    (r"cannot use map function inside a macro", "write the map operation out; functions can take the pointer"),
)
_ABSENT_MEMBER = re.compile(r"no member named '(?P<member>\w+)' in '(?P<tag>(?:struct |union )?\w+)'$")
# A write to kernel memory: bcc rewrote the left side as a read, and clang quotes the rewritten text.
_ASSIGNED = re.compile(r"bpf_probe_read\w*\(&_val, sizeof\(_val\), \(void \*\)&(?P<what>.*?)\); _val; \}\)")
_ANOTHER_KERNEL = "another kernel has it? write a variant for each, with `requires: {member: STRUCT.MEMBER}`"

# A message of LLVM's back end, what it means, and what would work.
_LATE = (
    (
        r"BPF stack limit",
        "needs more than the 512 bytes of stack that BPF has",
        "a key or value this large belongs in a BPF_PERCPU_ARRAY of one entry",
    ),
    (
        r"built-in function '__\w+[sd]f\w*'",
        "uses floating point, which the kernel does not have",
        "count in whole numbers; `scale:` makes seconds of nanoseconds",
    ),
    (r"built-in function '(mem\w+)'", "calls {1}() with a size that is not constant", "give it a constant size"),
    (
        r"too many args to|stack arguments",
        "calls a function with more than the 5 arguments that BPF has",
        "declare it static inline, or give it a pointer to a struct",
    ),
    (r"symbol '(\w+)' is already defined", "symbol '{1}' is already defined", "choose another name than {1}"),
)

_MAP_HINTS = {
    "Argument list too long": "key, value or their number are too large; a per-CPU value may have 32 KiB",
    "Invalid argument": "no size and no number of entries may be 0; a ring buffer's pages are a power of two",
    "Cannot allocate memory": "fewer entries need less",
    "Operation not permitted": "bcc makes the maps while it compiles: run as root",
}


@dataclass(frozen=True, slots=True)
class _Finding:
    """One error of clang. `quoted`: the source line and the line with the caret; `notes`: (position, message) of
    each."""

    where: str
    what: str
    quoted: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]

    def note(self, beginning: str) -> str:
        """Return the position of the first note that begins so, "" if there is none."""
        return next((where for where, what in self.notes if what.startswith(beginning)), "")


def from_clang(output: str, near_members: NearMembers = lambda _tag, _name: []) -> RefusedError:
    """Return a refusal with the first errors in clang's output, each with the lines that clang quotes.

    Reason.LAYOUT where a layout assert failed, Reason.MAP or PERMISSION where the kernel made no map; else COMPILER.
    """
    found = _findings(output)
    for finding in found:
        if layout := _LAYOUT.search(finding.what):
            return RefusedError(
                Reason.LAYOUT,
                f"compile layout of {layout['tag']}: clang and BTF disagree on "
                f"{'its size' if layout['member'] == 'size' else layout['member']}: it would be read at the wrong "
                "place (an error in libbpf's C text of this kernel's types; a newer libbpf may not have it)",
            )
    if not found:
        return _without_position(output)
    pieces = [_described(finding, near_members) for finding in found[:_SHOWN]]
    more = len(found) - len(pieces)
    counted = f"\nand {more} more error{'s' if more > 1 else ''}" if more > 0 else ""
    return RefusedError(Reason.COMPILER, "compile " + "\ncompile ".join(pieces) + counted)


def further_right(text: str, file: str, columns: int) -> str:
    """Return a message with the columns of its positions in a file increased: the C text is indented in the file."""
    position = re.compile(rf"(?<![\w/.-]){re.escape(file)}:(\d+):(\d+)")
    return position.sub(lambda match: f"{file}:{match[1]}:{int(match[2]) + columns}", text) if columns else text


def _findings(output: str) -> list[_Finding]:
    """Return the errors, without those that repeat another one."""
    headers = list(_HEADER.finditer(output))
    found: list[_Finding] = []
    for index, match in enumerate(headers):
        if "error" not in match["level"]:
            continue
        end = headers[index + 1].start() if index + 1 < len(headers) else len(output)
        quoted = output[match.end() : end].split("\n")[1:3]
        shown = len(quoted) == 2 and quoted[0].strip() and _CARET.fullmatch(quoted[1])
        notes = []
        for note in headers[index + 1 :]:
            if note["level"] != "note":
                break
            notes.append((note["where"], note["what"]))
        found.append(_Finding(match["where"], match["what"], tuple(quoted) if shown else (), tuple(notes)))
    # bcc declares a type and two variables for a map, so a second map of that name makes four errors.
    own = [f for f in found if not re.search(r"redefinition of '(?:____btf_map_\w+|\w+_table_t)'", f.what)]
    return own or found


def _described(finding: _Finding, near_members: NearMembers) -> str:
    if finding.what == "expression is not assignable" and (written := _ASSIGNED.search("".join(finding.quoted))):
        file = finding.where.rsplit(":", 2)[0]
        return f"{file}: writes to {written['what']}, memory of the kernel (a program may only read it)"
    quoted = "".join(f"\n    {line}" for line in finding.quoted)
    hint = "LOST() takes the name of a map" if "LOST(" in quoted else _hint(finding, near_members)
    what = re.sub(r" \[-W[^\]]*\]$", "", finding.what)
    return f"{finding.where}: {what}{f' ({hint})' if hint else ''}{quoted}"


def _hint(finding: _Finding, near_members: NearMembers) -> str:
    what = finding.what
    if match := re.match(r"redefinition of '(\w+)'", what):
        return f"{_first(finding, match[1])}: choose another name"
    if opening := finding.note("to match this"):
        return f"line {opening.split(':')[-2]} opens what is not closed"
    if any(where.startswith("<command line>") for where, _ in finding.notes):
        return "the text stands in `defines:`"
    for pattern, hint in _HINTS:
        if match := re.search(pattern, what):
            return hint.format(match[0], *match.groups())
    if match := _ABSENT_MEMBER.search(what):
        near = near_members(match["tag"], match["member"])
        return f"near: {', '.join(near)}; {_ANOTHER_KERNEL}" if near else _ANOTHER_KERNEL
    return ""


def _first(finding: _Finding, name: str) -> str:
    """Return where the name was defined before."""
    where = finding.note("previous definition is here")
    if "vmlinux.h" in where:
        return f"the kernel has a {name} of its own"
    if where.startswith("exporter.h:"):
        return f"the shared header has a {name}"
    return f"the first is in line {where.split(':')[-2]}" if where else f"there is a {name} already"


def _without_position(output: str) -> RefusedError:
    """Return a refusal for an error that has no position of clang's front end."""
    if refused := _MAP.search(output):
        what = refused["what"]
        hint = f" ({_MAP_HINTS[what]})" if what in _MAP_HINTS else ""
        reason = Reason.PERMISSION if what == "Operation not permitted" else Reason.MAP
        return RefusedError(reason, f"create map {refused['map']}: {_lower(what)}{hint}")
    if division := _DIVISION.search(output):
        text = "divides a signed number, which BPF cannot (make it u64 first, and mind the sign)"
        return RefusedError(Reason.COMPILER, f"compile {division['where']}: {text}")
    if late := _BACK_END.search(output):
        where = f"function {late['function']}: " if late["function"] else ""
        return RefusedError(Reason.COMPILER, f"compile {where}{_late(late['what'])}")
    if fatal := _FATAL.search(output):
        return RefusedError(Reason.COMPILER, f"compile: LLVM gave up: {_lower(fatal['what'])}")
    return RefusedError(Reason.COMPILER, "compile: bcc gave no module" + _tail(output))


def _late(what: str) -> str:
    for pattern, says, hint in _LATE:
        if match := re.search(pattern, what):
            return f"{says} ({hint})".format(match[0], *match.groups())
    return _lower(what).rstrip(". ")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _tail(output: str) -> str:
    lines = [line for line in output.strip().split("\n") if line][-5:]
    return "".join(f"\n    {line}" for line in lines)
