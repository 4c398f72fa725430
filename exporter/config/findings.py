"""Findings in a configuration with file, line and column, and the exception with all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from exporter.spec import Sources


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in a file. `line` and `column` count from 1; line 0 is the whole file. `order` is the number of the
    file in the order of reading, by which findings are sorted."""

    file: str
    line: int = 0
    column: int = 0
    order: int = 0

    @property
    def position(self) -> str:
        """file:line:column"""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake or warning and its position."""

    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark.position}: {self.text}"


def lines(findings: Iterable[Finding]) -> tuple[tuple[str, str], ...]:
    """Return where and what of each: (file:line:column, sentence)."""
    return tuple((finding.mark.position, finding.text) for finding in findings)


class ConfigErrors(Exception):  # noqa: N818  (it is a list of them)
    """All mistakes of a configuration, sorted by position; `str()` has one finding a line. `sources`: the files
    read."""

    def __init__(self, findings: Iterable[Finding], sources: Sources | None = None) -> None:
        self.findings = tuple(findings)
        self.sources = sources or Sources()
        super().__init__("\n".join(map(str, self.findings)))


@dataclass(slots=True)
class Findings:
    """Collects findings while the files are read."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def error(self, mark: Mark, text: str) -> None:
        self.errors.append(Finding(mark, text))

    def warn(self, mark: Mark, text: str) -> None:
        self.warnings.append(Finding(mark, text))

    def has_error_at(self, mark: Mark) -> bool:
        return any(finding.mark == mark for finding in self.errors)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings sorted by file (in the order of reading) and position, without duplicates."""
    return sorted(dict.fromkeys(findings), key=lambda f: (f.mark.order, f.mark.line, f.mark.column, f.text))


def quoted(text: str) -> str:
    return f'"{text}"'
