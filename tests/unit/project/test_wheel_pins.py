"""deploy/requirements.txt, of which the package and the image are made: each dependency as constraints.txt has it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import pin_wheels

ROOT = Path(__file__).resolve().parents[3]
PINNED = re.compile(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
AGAIN = "run .venv/bin/python deploy/pin_wheels.py"


def pinned() -> dict[str, tuple[str, int]]:
    """Name -> version, and how many wheels may be taken for it."""
    entries = PINNED.findall(pin_wheels.REQUIREMENTS.read_text())
    return {canonicalize_name(name): (version, hashes.count("--hash")) for name, version, hashes in entries}


def needed() -> set[str]:
    """What the project's dependencies need, and what these need, as it is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    waiting = [Requirement(line) for line in project["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(line) for line in metadata.requires(name) or ()]
    return found


def test_every_line_names_a_version_and_hashes() -> None:
    text = pin_wheels.REQUIREMENTS.read_text()
    assert len(PINNED.findall(text)) == text.count("==")


def test_what_is_needed_is_pinned_and_nothing_else() -> None:
    assert set(pinned()) == needed(), AGAIN


def test_versions_are_those_that_the_tests_run_with() -> None:
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    tested = {str(canonicalize_name(name)): version for name, version in constraints.items()}
    chosen = {name: version for name, (version, _) in pinned().items()}
    assert chosen == {name: tested[name] for name in chosen}, AGAIN


@pytest.mark.parametrize("name", sorted(pinned()))
def test_compiled_code_has_a_wheel_for_each_machine(name: str) -> None:
    wheel = metadata.distribution(name).read_text("WHEEL") or ""
    _, count = pinned()[name]
    if "-none-any" in wheel:
        assert count == 1
    else:
        assert count >= len(pin_wheels.MACHINES), AGAIN


def test_the_package_takes_what_is_pinned_and_depends_on_what_is_run_with() -> None:
    script = (ROOT / "deploy/build-deb").read_text()
    assert re.findall(r"for version_of_python in (.*); do", script) == [" ".join(pin_wheels.PYTHONS)]
    assert re.findall(r'--platform "(\w+)_\$machine"', script) == list(pin_wheels.PLATFORMS)
    control = (ROOT / "deploy/debian/control.in").read_text()
    image = (ROOT / "deploy/Containerfile").read_text()
    makefile = (ROOT / "Makefile").read_text()
    (packages,) = re.findall(r"^RUN_PACKAGES := (.*)$", makefile, re.MULTILINE)
    for package in packages.split():
        assert (
            package == "python3-venv" or f" {package}," in control
        )  # which made the environment, and is not needed later
        assert package in image
    for python in pin_wheels.PYTHONS:
        minor = int(python.partition(".")[2])
        assert f"python3 (>= 3.{minor}~)" in control
        assert f"python3 (<< 3.{minor + 1}~)" in control
