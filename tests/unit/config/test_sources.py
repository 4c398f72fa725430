"""What a configuration was read from: its digest, and whether there is anything else to read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import config
from exporter.config.sources import changed, digest
from exporter.spec import Sources

PROGRAM = """\
name: taken
source: taken.c
attach: [{kprobe: f, function: on_f}]
metrics: [{name: ebpf_taken_total, type: counter, help: h, map: m}]
"""


def write(directory: Path) -> Path:
    """A configuration with an include, a C text, a bundled program in `bundled` and one beside the main file."""
    for folder in ("conf.d", "programs", "bundled"):
        (directory / folder).mkdir(parents=True)
    (directory / "config.yaml").write_text("include: [conf.d/*.yaml]\nprograms: [{use: taken}]\n")
    entry = PROGRAM.replace("taken", "own").replace("\n", "\n    ").strip()
    (directory / "conf.d/a.yaml").write_text(f"programs:\n  - {entry}\n")
    (directory / "conf.d/own.c").write_text("int on_f(void *ctx) { return 0; }\n")
    (directory / "bundled/taken.yaml").write_text(PROGRAM)
    (directory / "bundled/taken.c").write_text("int on_f(void *ctx) { return 1; }\n")
    return directory


def read(directory: Path) -> Sources:
    try:
        return config.load(directory / "config.yaml", bundled=directory / "bundled").sources
    except config.ConfigErrors as errors:
        return errors.sources


def test_hosts_with_equal_files_have_equal_digests(tmp_path: Path) -> None:
    here, there = read(write(tmp_path / "here")), read(write(tmp_path / "there"))
    assert here.files != there.files
    assert digest(here) == digest(there)
    assert len(here.files) == 5
    (tmp_path / "there/conf.d/own.c").write_text("int on_f(void *ctx) { return 2; }\n")
    assert digest(read(tmp_path / "there")) != digest(here)


@pytest.mark.parametrize(
    "file", ["config.yaml", "conf.d/a.yaml", "conf.d/own.c", "bundled/taken.yaml", "bundled/taken.c"]
)
@pytest.mark.parametrize("change", ["touch", "append", "remove", "mode"])
def test_a_file_that_is_another_is_seen(tmp_path: Path, file: str, change: str) -> None:
    sources = read(write(tmp_path / "x"))
    path = tmp_path / "x" / file
    assert not changed(sources)
    if change == "touch":
        os.utime(path, (1, 1))
    elif change == "append":
        path.write_text(path.read_text() + "\n")
    elif change == "remove":
        path.unlink()
    else:
        path.chmod(0o622)  # now others may write what runs in the kernel
    assert changed(sources) is (change != "touch")
    # The same again, in the form in which it comes from another process.
    assert Sources.model_validate(json.loads(json.dumps(sources.model_dump()))) == sources
    assert not changed(read(tmp_path / "x"))


@pytest.mark.parametrize(
    "add",
    [
        lambda x: (x / "conf.d/b.yaml").write_text("programs: []\n"),  # another file to include
        lambda x: (x / "programs/taken.yaml").write_text(PROGRAM),  # takes the place of the bundled one
    ],
)
def test_a_file_that_would_be_read_as_well_is_seen(tmp_path: Path, add: Callable[[Path], object]) -> None:
    sources = read(write(tmp_path / "x"))
    (tmp_path / "x/conf.d/README").write_text("not included")
    assert not changed(sources)
    add(tmp_path / "x")
    assert changed(sources)


def test_a_file_that_could_not_be_read_is_looked_at_again(tmp_path: Path) -> None:
    directory = write(tmp_path / "x")
    (directory / "conf.d/own.c").unlink()
    sources = read(directory)
    assert not changed(sources)  # the same mistake is not told again
    (directory / "conf.d/own.c").write_text("int on_f(void *ctx) { return 0; }\n")
    assert changed(sources)
