"""Programs that fail, in files that are read like a table: what is declared, and what the exporter says of it.

A file FAMILY.cases holds cases one after another:

    == title
    attach: ...                 what stands in the entry of `programs:` besides name and source; nothing is DEFAULT
    -- c
    int on_event(void *ctx)     the C text in case.c; a case with `code:` has none
    -- failed compiler
    case: compile case.c:1: ... the text of the state; "config" where the configuration is refused before that

`pytest tests/kernel/test_failures.py --update-expected` rewrites states and texts; review the difference like code.
"""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT = "attach: [{raw_tracepoint: task_rename, function: on_event}]\n"
_METRICS = "metrics: [{name: calls, type: gauge, help: Calls., map: calls, value: 1, labels: []}]\n"
# The registers and instructions of a verifier's log are clang's and the kernel's: what it comes to stands before it.
# Debug information has the end of a long directory's name only.
_FILE = re.compile(r"\S*/(case\.c|config\.yaml)\b")
_LOG = re.compile(r"(?<=; the end of its log:\n).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Case:
    """`c` is None where the entry has its text inline; `says` is "STATE REASON" and the text."""

    family: str
    title: str
    entry: str
    c: str | None
    says: str

    def write(self, directory: Path) -> Path:
        """The configuration of this case in a directory; its path."""
        config = directory / "config.yaml"
        entry = self.entry or DEFAULT
        if not re.search(r"^metrics:", entry, re.MULTILINE):
            entry += _METRICS
        source = "" if self.c is None else "source: case.c\n"
        config.write_text("programs:\n  - name: case\n" + textwrap.indent(source + entry, "    "))
        if self.c is not None:
            (directory / "case.c").write_text(self.c)
        return config

    def text(self) -> str:
        c = "" if self.c is None else f"-- c\n{self.c}"
        state, _, said = self.says.partition("\n")
        return f"== {self.title}\n{self.entry}{c}-- {state}\n{said}"


def read(family: str) -> list[Case]:
    text = (HERE / f"{family}.cases").read_text()
    return [_case(family, piece) for piece in re.split(r"^== ", text, flags=re.MULTILINE)[1:]]


def families() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.cases"))


def _case(family: str, piece: str) -> Case:
    title, _, rest = piece.partition("\n")
    entry, *parts = re.split(r"^-- ", rest.rstrip("\n") + "\n", flags=re.MULTILINE)
    c = None
    says = ""
    for part in parts:
        if part.startswith("c\n"):
            c = part.removeprefix("c\n")
        else:
            says = part
    return Case(family, title, entry, c, says)


def rewrite(family: str, cases: list[Case]) -> None:
    head = (HERE / f"{family}.cases").read_text().partition("== ")[0]
    (HERE / f"{family}.cases").write_text(head + "\n".join(case.text() for case in cases))


def normal(text: str, directory: Path) -> str:
    """A text without what changes from run to run or host to host."""
    text = text.replace(f"{directory}/", "").replace(os.uname().release, "RELEASE")
    return _LOG.sub("...", _FILE.sub(r"\1", text))
