"""Lint: elements of arrays in structs of the kernel that bcc reads from the wrong address, found in the C text.

bcc turns p->x of a kernel pointer into bpf_probe_read_kernel(). Of p->x[i] it copies x and then reads i elements behind
the copy's address: task->comm[3] is 0 (seen with bcc 0.26), compiles and verifies. The first element is right.

Only certain cases are reported: a pointer to a struct that the text does not define, which the function gets from
ctx->args, PT_REGS_PARM or bpf_get_current_task(), as bcc recognizes a pointer into the kernel. Functions of BPF_PROG()
are left out, because their pointers are typed and the verifier reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FUNCTION = re.compile(r"^(?!\s)[^;{}#]*\)\s*\{.*?^\}", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"\b(?:BPF_PROG|KFUNC_PROBE|KRETFUNC_PROBE|LSM_PROBE)\s*\(")
_GOT = re.compile(
    r"\bstruct\s+(?P<struct>\w+)\s*\*\s*(?P<name>\w+)\s*=[^;]*?(?:ctx->args|PT_REGS_(?:PARM|RC)|bpf_get_current_task)"
)
_ELEMENT = r"(?<![\w&.>])(?:{name})->[\w.>-]+\[(?!\s*0\s*\])(?P<index>[^\]]*)\]"
_BY_ADDRESS = re.compile(r"(?:&|\b(?:PEEK|sizeof|typeof|__typeof__)\s*\()\s*$")


def findings(code: str) -> Iterator[tuple[int, str]]:
    """Yield (offset, what is wrong and what to write) for each; `code` has no comments and literals."""
    own = set(re.findall(r"\bstruct\s+(\w+)\s*\{", code))
    for function in _FUNCTION.finditer(code):
        if _TYPED.search(function[0]):
            continue
        names = {found["name"] for found in _GOT.finditer(function[0]) if found["struct"] not in own}
        if not names:
            continue
        element = re.compile(_ELEMENT.format(name="|".join(map(re.escape, sorted(names)))))
        for match in element.finditer(function[0]):
            if not _BY_ADDRESS.search(function[0][: match.start()]):
                text = f"{match[0]} is read from the wrong place: bcc copies the array and reads behind the copy"
                right = f"write bpf_probe_read_kernel(&value, sizeof(value), &{match[0]})"
                yield function.start() + match.start(), f"{text} ({right})"
