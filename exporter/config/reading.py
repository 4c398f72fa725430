"""The implementation of `exporter.config.load`, which needs pydantic and PyYAML."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from exporter.config import LoadedConfig, families
from exporter.config.bundled import bundled_dir
from exporter.config.config_files import FileReader
from exporter.config.findings import ConfigErrors, Findings, in_order
from exporter.config.merge import Merge
from exporter.spec import Config, Limits


def load(
    path: str | Path,
    *,
    strict: bool = False,
    enforce_owner: bool = False,
    trust_owner: int | Iterable[int] | None = None,
    bundled: Path | None = None,
) -> LoadedConfig:
    """See `exporter.config.load`."""
    merge = _merge(bundled, enforce_owner, trust_owner)
    main = merge.main(Path(path))
    return _loaded(merge, strict, Limits(**main.limits.model_dump()))


def load_bundled(name: str, *, strict: bool = False, bundled: Path | None = None) -> LoadedConfig:
    """See `exporter.config.load_bundled`."""
    directory = bundled if bundled is not None else bundled_dir()
    merge = _merge(directory, False, None)
    merge.bundled_entry(directory / f"{name}.yaml")
    return _loaded(merge, strict, Limits())


def _merge(bundled: Path | None, enforce_owner: bool, trust_owner: int | Iterable[int] | None) -> Merge:
    trusted = [trust_owner] if isinstance(trust_owner, int) else list(trust_owner or ())
    reader = FileReader(frozenset([0, *trusted]) if enforce_owner else None)
    return Merge(reader, bundled if bundled is not None else bundled_dir(), Findings())


def _loaded(merge: Merge, strict: bool, limits: Limits) -> LoadedConfig:
    report = merge.report
    families.check(merge.programs, report)
    errors = [*report.errors, *(report.warnings if strict else ())]
    if errors:
        raise ConfigErrors(in_order(errors), merge.reader.sources)
    programs = [marked.program for marked in merge.programs]
    return LoadedConfig(
        Config(programs=programs, limits=limits),
        tuple(in_order(report.warnings)),
        merge.reader.sources,
    )
