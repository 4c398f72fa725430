"""The floors: a module imports from its own folder or from below, and nobody but the compiler imports bcc."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "exporter"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Folder or module -> floor. What stands together on one floor may import each other, but loading, collecting and web.
FLOORS = {
    "kernel": 0,
    "program": 0.5,  # named by every other module of floor 1
    "config": 1,
    "decoders": 1,
    "binding": 1,
    "buckets": 1,
    "fields": 1,
    "map_memory": 1,
    "messages": 1,
    "totals": 1,
    "log": 0.5,
    "run_time": 0.5,
    "repeats": 0,
    "notify": 0.5,
    "listen_fds": 0.5,
    "collecting": 2,
    "loading": 3,
    "web": 3,
    "start_server": 5,
    "supervising": 4,
    "serving": 4,
    "supervisor": 4,
    "server": 4,
    "start": 5,
    "catalogue": 4,
    "checking": 4,
    "compiling": 4,
    "configuration": 4,
    "doctor": 4,
    "exits": -1,
    "offline": 5,
    "web_configuration": 4,
    "cli": 5,
    "__main__": 5,
    "_structlog": -1,
    "__init__": -1,
}
APART = [
    ("loading", "collecting"),
    ("collecting", "loading"),
    ("loading", "web"),
    ("web", "loading"),
    ("web", "collecting"),
]
NEED_NUMPY = {"collecting"}


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(module: Path) -> set[str]:
    """Names of the modules imported anywhere in the file, except those for type checking only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_point_down(module: Path) -> None:
    here = room(module)
    for name in imported(module):
        parts = name.split(".")
        if parts[0] != "exporter" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        assert FLOORS[parts[1]] <= FLOORS[here], f"{here} imports {name}, a floor above"
        assert (here, parts[1]) not in APART, f"{here} and {parts[1]} meet in program.py only"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_only_the_compiler_imports_bcc_and_only_collecting_numpy(module: Path) -> None:
    names = {name.split(".")[0] for name in imported(module)}
    assert "bcc" not in names or module.relative_to(PACKAGE) == Path("loading/compiler.py")
    assert "numpy" not in names or room(module) in NEED_NUMPY


def test_every_module_has_a_floor() -> None:
    assert {room(module) for module in MODULES} <= set(FLOORS)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_no_module_is_so_long_that_it_has_two_reasons_to_exist(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 450
