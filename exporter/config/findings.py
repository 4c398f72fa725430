"""What is wrong with a configuration: findings with file, line and column, and the exception that carries them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from exporter.config.sources import Sources


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file. `line` and `column` count from 1; line 0 is the file as a whole. `order` says which file was
    read first, so that findings sort as a person reads."""

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
    """One mistake (or, as a warning, one matter of taste) and where it is."""

    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark.position}: {self.text}"


def lines(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Where and what of each, as a child that reads answers it."""
    return [(finding.mark.position, finding.text) for finding in findings]


class ConfigErrors(Exception):  # noqa: N818  (it is a list of them)
    """Everything that is wrong with a configuration, sorted by position; `str()` gives one finding a line. `sources`:
    what was read of it."""

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
    """Sorted by file (in the order of reading) and position, each once."""
    return sorted(dict.fromkeys(findings), key=lambda f: (f.mark.order, f.mark.line, f.mark.column, f.text))


def quoted(text: str) -> str:
    return f'"{text}"'
