"""The directory of bundled programs and the names in it."""

from __future__ import annotations

import os
from pathlib import Path


def bundled_dir() -> Path:
    """Return the directory of bundled programs: package data of an installed wheel, else `programs/` of the
    checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "programs"
    return installed if installed.is_dir() else package.parent / "programs"


def names(directory: Path) -> list[str]:
    """Return the names that `use:` finds in `directory`, sorted; empty if there is no such directory."""
    return sorted(path.stem for path in directory.glob("*.yaml") if path.is_file())


def find(name: str, directories: list[Path]) -> tuple[Path | None, list[str]]:
    """Return the YAML file of program `name` in the first directory that has it, and the paths that do not exist."""
    absent: list[str] = []
    for directory in directories:
        path = directory / f"{name}.yaml"
        if os.path.isfile(path):  # Path.is_file() raises ENAMETOOLONG
            return path, absent
        absent.append(str(path))
    return None, absent
