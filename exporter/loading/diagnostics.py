"""What clang printed -> one CompileError that says what to do."""

from __future__ import annotations

import re

from exporter.loading import guard
from exporter.program import Reason

_ERROR = re.compile(r"^(?P<where>[^\n]+?:\d+:\d+): (?:fatal )?error: (?P<what>.*)$", re.MULTILINE)
# The message in quotes until clang 15, after a colon from 16 on.
_LAYOUT = re.compile(rf"[\": ]{guard.MARK}(?P<tag>(?:struct|union) \w+): (?P<member>\w+)\"?$")
# LLVM's back end: its line numbers are those of the text that bcc rewrote, so only the function is of use.
_BACK_END = re.compile(
    r"^error: (?:\S+:\d+(?::\d+)?: )?(?:in function (?P<function>\w+) [^:]*: )?(?P<what>.*)$", re.MULTILINE
)
# bcc makes each map while it compiles; the words behind "error: " are strerror(3)'s.
_MAP = re.compile(r"^could not open bpf map: (?P<map>\w+)[^\n]*?, error: (?P<what>.*)$", re.MULTILINE)
_SHOWN = 3

# clang's words, and what they mean here. {1} is the first group.
_NO_FUNCTION = "BTF has types but no inline functions: write what {1} does, or the right name of a helper"
_HINTS = (
    (r"redefinition of '(\w+)'", "the kernel, or this text, already has {1}: choose another name"),
    (r"use of undeclared identifier '([A-Z][A-Z0-9_]*)'", "BTF has no macros of kernel headers: #define {1} here"),
    (r"implicit declaration of function '(\w+)'", _NO_FUNCTION),
    (r"call to undeclared function '(\w+)'", _NO_FUNCTION),
    (r"incomplete (?:definition of )?type '(?:struct|union) (\w+)'", "this kernel has no {1}, or only in a module"),
    (r"no member named '(\w+)' in", "not on this kernel: another variant, with `requires: {{member: STRUCT.MEMBER}}`?"),
    (r"BPF stack limit", "a key or value this large belongs in a BPF_PERCPU_ARRAY of one entry"),
    (r"symbol '(\w+)' is already defined", "choose another name than {1}"),
    (r"cannot use map function inside a macro", "write the map operation out; functions can take the pointer"),
)

_MAP_HINTS = {
    "Argument list too long": "key, value or their number are too large; a per-CPU value may have 32 KiB",
    "Invalid argument": "no size and no number of entries may be 0",
    "Cannot allocate memory": "fewer entries need less",
    "Operation not permitted": "bcc makes the maps while it compiles: run as root",
}


class CompileError(Exception):
    """A variant that could not be compiled: the reason as a word and the text for people."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def from_clang(output: str) -> CompileError:
    """The first errors in what clang printed, each with the lines that it quotes.

    Reason.LAYOUT where a layout assert failed; else Reason.COMPILER.
    """
    found = list(_ERROR.finditer(output))
    for match in found:
        if layout := _LAYOUT.search(match["what"]):
            return CompileError(
                Reason.LAYOUT,
                f"compile layout of {layout['tag']}: clang and BTF disagree on "
                f"{'its size' if layout['member'] == 'size' else layout['member']}: it would be read at the wrong "
                "place (an error in libbpf's C text of this kernel's types; a newer libbpf may not have it)",
            )
    if not found and (refused := _MAP.search(output)):
        what = refused["what"]
        hint = f" ({_MAP_HINTS[what]})" if what in _MAP_HINTS else ""
        reason = Reason.PERMISSION if what == "Operation not permitted" else Reason.MAP
        return CompileError(reason, f"create map {refused['map']}: {what[0].lower()}{what[1:]}{hint}")
    if not found and (late := _BACK_END.search(output)):
        where = f"function {late['function']}: " if late["function"] else ""
        return CompileError(Reason.COMPILER, f"compile {where}{late['what']}{_hint(late['what'])}")
    if not found:
        return CompileError(Reason.COMPILER, "compile: bcc gave no module" + _tail(output))
    pieces = []
    for match, following in zip(found[:_SHOWN], [*found[1:], None], strict=False):
        quoted = output[match.end() : following.start() if following else len(output)].split("\n")[1:3]
        excerpt = "".join(f"\n    {line}" for line in quoted if re.match(r"[ \t]|\S.*;|.*\^", line))
        hint = " (LOST() takes the name of a map)" if "LOST(" in excerpt else _hint(match["what"])
        pieces.append(f"{match['where']}: {match['what']}{hint}{excerpt}")
    more = len(found) - len(pieces)
    return CompileError(
        Reason.COMPILER, "compile " + "\ncompile ".join(pieces) + (f"\nand {more} more errors" if more > 0 else "")
    )


def _hint(what: str) -> str:
    for pattern, hint in _HINTS:
        if match := re.search(pattern, what):
            return f" ({hint.format(match[0], *match.groups())})"
    return ""


def _tail(output: str) -> str:
    lines = [line for line in output.strip().split("\n") if line][-5:]
    return "".join(f"\n    {line}" for line in lines)
