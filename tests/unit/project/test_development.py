"""CONTRIBUTING.md and docs/development.md are true: the code that they show is the code, every link leads to a file and
its heading, every path exists, and the table has every module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.config import document
from exporter.loading.attaching.kinds import KINDS
from exporter.spec import ATTACH_KINDS
from tests.unit.project.floors import FLOORS, MODULES, PACKAGE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/development.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
CODE = re.findall(r"in `(\w+\.py)`:\n\n```python\n(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests/matrix/README.md"])


@pytest.mark.parametrize(("file", "shown"), CODE, ids=[file for file, _ in CODE])
def test_each_line_of_the_walk_through_stands_in_the_file_that_it_names(file: str, shown: str) -> None:
    (path,) = (ROOT / "exporter").rglob(file)
    there = {line.strip() for line in path.read_text().splitlines()}
    assert [line for line in shown.splitlines() if line.strip() not in {*there, "...,"}] == []


def test_a_decoder_and_an_attach_kind_are_walked_through() -> None:
    assert [file for file, _ in CODE] == ["network.py", "tracepoint.py"]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        if "://" not in link:
            target = page.parent / link if link else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make (\w+)", CONTRIBUTING, re.MULTILINE)) <= targets


@pytest.mark.parametrize("text", [PAGE, CONTRIBUTING], ids=["development", "contributing"])
def test_every_file_that_a_page_names_exists(text: str) -> None:
    named = set(re.findall(r"`((?:\w+/)+[\w.-]*)`", text)) - {"peer/", "dest/", "programs/NAME.yaml", "programs/NAME.c"}
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "exporter" / name).exists()] == []


def table() -> dict[str, tuple[int, set[str]]]:
    """By folder of exporter/ ("" for modules outside a folder): its floor and the modules that the page names in it."""
    found: dict[str, tuple[int, set[str]]] = {}
    for line in PAGE.partition("| floor |")[2].partition("\n\n")[0].splitlines()[2:]:
        floor, folder, _, modules = (cell.strip() for cell in line.strip("|").split("|"))
        name = folder.strip("`").removesuffix("/").removesuffix("—")
        names = set(re.findall(r"`(\w+)`", modules))
        found[name] = (int(floor), names | found.get(name, (0, set()))[1])
    return found


def test_every_module_is_in_the_table_and_everything_in_the_table_is_a_module() -> None:
    there: dict[str, set[str]] = {}
    for module in MODULES:
        if module.stem != "__init__":
            folder = module.relative_to(PACKAGE).parent
            there.setdefault("" if folder == Path() else str(folder), set()).add(module.stem)
    assert {folder: names for folder, (_, names) in table().items()} == there


def test_the_table_has_the_floors_that_imports_are_held_to() -> None:
    assert {folder: floor for folder, (floor, _) in table().items() if folder} == {
        folder: FLOORS[folder.partition("/")[0]] for folder in table() if folder
    }


def test_every_kind_of_attach_point_is_named_where_the_page_says() -> None:
    tables = (ROOT / "docs/attach.md").read_text()
    assert set(KINDS) == set(ATTACH_KINDS)
    for kind in KINDS:
        assert kind in document.AttachDocument.model_fields
        assert re.search(rf"^## .*\b{kind}\b", tables, re.MULTILINE), kind
