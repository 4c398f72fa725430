"""YAML files with positions -> the models that the rest of the exporter works with; and the bundled programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from exporter.config import families
from exporter.config.bundled import bundled_dir
from exporter.config.document import Limits
from exporter.config.files import Reader
from exporter.config.findings import ConfigErrors, Finding, Mark, Report, in_order
from exporter.config.merge import Merge
from exporter.config.model import Config
from exporter.config.schema import json_schema

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
    files     every file that was read, C texts too, in the order of reading
    """

    config: Config
    warnings: tuple[Finding, ...]
    files: tuple[Path, ...]


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
    merge = _merge(bundled, enforce_owner, trust_owner)
    main = merge.main(Path(path))
    return _loaded(merge, strict, main.limits)


def load_bundled(name: str, *, strict: bool = False, bundled: Path | None = None) -> LoadedConfig:
    """One bundled program alone, as `use: NAME` gives it; ConfigErrors as `load`."""
    directory = bundled if bundled is not None else bundled_dir()
    merge = _merge(directory, False, None)
    merge.bundled_entry(directory / f"{name}.yaml")
    return _loaded(merge, strict, Limits())


def _merge(bundled: Path | None, enforce_owner: bool, trust_owner: int | Iterable[int] | None) -> Merge:
    trusted = [trust_owner] if isinstance(trust_owner, int) else list(trust_owner or ())
    reader = Reader(frozenset([0, *trusted]) if enforce_owner else None)
    return Merge(reader, bundled if bundled is not None else bundled_dir(), Report())


def _loaded(merge: Merge, strict: bool, limits: Limits) -> LoadedConfig:
    report = merge.report
    families.check(merge.programs, report)
    errors = [*report.errors, *(report.warnings if strict else ())]
    if errors:
        raise ConfigErrors(in_order(errors))
    programs = [placed.program for placed in merge.programs]
    return LoadedConfig(
        Config(programs=programs, **limits.model_dump()),
        tuple(in_order(report.warnings)),
        tuple(merge.reader.read),
    )
