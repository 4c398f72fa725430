"""YAML files with positions -> the spec (exporter/spec.py), or every mistake with its file, line and column.

pydantic and PyYAML (14 MB) are imported when a file is read, which happens in a child process that ends. Nothing here
looks at a compiled program: what needs a map's types is checked in binding/.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.config.bundled import bundled_dir
from exporter.config.findings import ConfigErrors, Finding, Mark
from exporter.config.sources import Sources
from exporter.spec import Config

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

    warnings  matters of taste, by position
    sources   what it was read from
    """

    config: Config
    warnings: tuple[Finding, ...]
    sources: Sources

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read, C texts too, in the order of reading."""
        return tuple(map(Path, self.sources.files))


def load(
    path: str | Path,
    *,
    strict: bool = False,
    enforce_owner: bool = False,
    trust_owner: int | Iterable[int] | None = None,
    bundled: Path | None = None,
) -> LoadedConfig:
    """Reads the main file and every file it names.

    strict         matters of taste are mistakes
    enforce_owner  every file must belong to root or to `trust_owner` (user ids) and be writable by nobody else
    bundled        the directory of bundled programs, instead of `bundled_dir()`

    ConfigErrors with every mistake, sorted by position; no other exception, whatever the files hold.
    """
    from exporter.config import reading

    return reading.load(path, strict=strict, enforce_owner=enforce_owner, trust_owner=trust_owner, bundled=bundled)


def load_bundled(name: str, *, strict: bool = False, bundled: Path | None = None) -> LoadedConfig:
    """One bundled program alone, as `use: NAME` gives it; ConfigErrors as `load`."""
    from exporter.config import reading

    return reading.load_bundled(name, strict=strict, bundled=bundled)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the main file."""
    from exporter.config import schema

    return schema.json_schema()
