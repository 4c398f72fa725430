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


def find(name: str, directories: list[Path]) -> tuple[Path | None, list[str]]:
    """The YAML file of program `name` in the first directory that has it, and where it was looked for in vain."""
    absent: list[str] = []
    for directory in directories:
        path = directory / f"{name}.yaml"
        if os.path.isfile(path):  # Path.is_file() raises where a name is too long for any file
            return path, absent
        absent.append(str(path))
    return None, absent
