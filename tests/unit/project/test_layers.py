"""The floors: a module imports from its own folder or from below, and nobody but the compiler imports bcc."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.unit.project.floors import FLOORS, MODULES, PACKAGE

# Folder or module of exporter/ -> floor, counted from the ground.
# Folders of one floor that do not know each other.
APART = {frozenset(pair) for pair in (("loading", "collecting"), ("loading", "web"), ("collecting", "web"))}
LOOSE_MODULES = 8
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
        assert {here, parts[1]} not in APART, f"{here} and {parts[1]} meet in program.py only"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_only_the_compiler_imports_bcc_and_only_collecting_numpy(module: Path) -> None:
    names = {name.split(".")[0] for name in imported(module)}
    assert "bcc" not in names or module.relative_to(PACKAGE) == Path("loading/compiling/compiler.py")
    assert "numpy" not in names or room(module) in NEED_NUMPY


def test_every_module_has_a_floor_and_every_floor_a_module() -> None:
    assert {room(module) for module in MODULES} == set(FLOORS)


def test_few_modules_stand_outside_a_folder() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= LOOSE_MODULES


@pytest.mark.parametrize("folder", sorted({module.parent for module in MODULES}), ids=lambda f: f.name)
def test_every_folder_says_what_goes_in_what_comes_out_and_what_it_leaves_to_others(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(text.split()) >= 15


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_no_module_is_so_long_that_it_has_two_reasons_to_exist(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 450


def test_no_test_file_imports_another() -> None:
    """Code that tests share is in a module without tests, or in a conftest.py."""
    tests = Path(__file__).resolve().parents[2]
    assert [path for path in tests.rglob("*.py") if any(".test_" in name for name in imported(path))] == []
