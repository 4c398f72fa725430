"""Where the programs that come with the exporter are, and which."""

from __future__ import annotations

import os
from pathlib import Path


def bundled_dir() -> Path:
    """The directory of bundled programs: package data of an installed wheel, else `programs/` of the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "programs"
    return installed if installed.is_dir() else package.parent / "programs"


def names(directory: Path) -> list[str]:
    """Names that `use:` finds in `directory`, sorted; empty if there is no such directory."""
    return sorted(path.stem for path in directory.glob("*.yaml") if path.is_file())


def find(name: str, directories: list[Path]) -> Path | None:
    """The YAML file of program `name` in the first directory that has it."""
    candidates = (directory / f"{name}.yaml" for directory in directories)
    # Path.is_file() raises where a name is too long for any file.
    return next((path for path in candidates if os.path.isfile(path)), None)
