"""The modules of the package, and the floor of each folder."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[3] / "exporter"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Folder or module of exporter/ -> floor, counted from the ground.
FLOORS = {
    "__init__": 0,
    "kernel": 0,
    "log": 0,
    "program": 0,
    "spec": 0,
    "systemd": 0,
    "decoders": 1,
    "ipc": 1,
    "binding": 2,
    "config": 2,
    "collecting": 3,
    "loading": 3,
    "web": 3,
    "server": 4,
    "supervisor": 4,
    "commands": 5,
    "cli": 6,
    "__main__": 6,
}
