"""YAML files -> the spec (exporter/spec.py), or every mistake with its file, line and column.

A short-lived child process reads the files, because pydantic and PyYAML take 14 MB. This folder does not know compiled
programs: binding/ checks what needs the types of a map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.config.bundled import bundled_dir
from exporter.config.findings import ConfigErrors, Finding, Findings, Mark, in_order
from exporter.spec import Config, Limits, Sources

if TYPE_CHECKING:
    from exporter.config.merge import Merge

__all__ = [
    "ConfigErrors",
    "Finding",
    "LoadedConfig",
    "Mark",
    "bundled_dir",
    "json_schema",
    "load",
    "load_bundled",
]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration without mistakes.

    warnings  unusual names, by position
    sources   the files that it was read from
    """

    config: Config
    warnings: tuple[Finding, ...]
    sources: Sources

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read, including C texts, in the order of reading."""
        return tuple(map(Path, self.sources.files))


def load(
    path: str | Path,
    *,
    strict: bool = False,
    enforce_owner: bool = False,
    trust_owner: int | Iterable[int] | None = None,
    bundled: Path | None = None,
) -> LoadedConfig:
    """Read the main file and every file it names.

    strict         warnings are mistakes
    enforce_owner  every file must belong to root or to `trust_owner` (user ids) and be writable by nobody else
    bundled        the directory of bundled programs, instead of `bundled_dir()`

    ConfigErrors has every mistake, sorted by position; no content of the files raises another exception.
    """
    from exporter.config.config_files import FileReader
    from exporter.config.merge import Merge

    trusted = [trust_owner] if isinstance(trust_owner, int) else list(trust_owner or ())
    reader = FileReader(frozenset([0, *trusted]) if enforce_owner else None)
    merge = Merge(reader, bundled if bundled is not None else bundled_dir(), Findings())
    limits = merge.main(Path(path)).limits
    return _loaded(merge, strict, Limits(**limits.model_dump()))


def load_bundled(name: str, *, strict: bool = False, bundled: Path | None = None) -> LoadedConfig:
    """Read one bundled program, as `use: NAME` does. ConfigErrors as in `load`."""
    from exporter.config.config_files import FileReader
    from exporter.config.merge import Merge

    directory = bundled if bundled is not None else bundled_dir()
    merge = Merge(FileReader(), directory, Findings())
    merge.bundled_entry(directory / f"{name}.yaml")
    return _loaded(merge, strict, Limits())


def _loaded(merge: Merge, strict: bool, limits: Limits) -> LoadedConfig:
    from exporter.config import families

    families.check(merge.programs, merge.report)
    errors, warnings = merge.report.errors, merge.report.warnings
    if errors or (strict and warnings):
        raise ConfigErrors(in_order([*errors, *(warnings if strict else ())]), merge.reader.sources)
    programs = [marked.program for marked in merge.programs]
    return LoadedConfig(Config(programs=programs, limits=limits), tuple(in_order(warnings)), merge.reader.sources)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the main file."""
    from exporter.config import schema

    return schema.json_schema()
