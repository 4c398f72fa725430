"""Broken configurations bad_configs/NAME.bad.yaml, each with its exact messages as comments in its first lines.

A line `# error: LINE:COLUMN: TEXT` is a message about the file itself, and counts as a line of it. A message about
another file begins with that file's name. `pytest tests/unit/config/test_bad_configs.py --update-expected` rewrites
the comments; review the difference like code.
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest

from exporter import config

HERE = Path(__file__).resolve().parent / "bad_configs"
BROKEN = sorted(HERE.glob("*.bad.yaml"))
COMMENT = b"# error: "


def refused(path: Path) -> config.ConfigErrors:
    with pytest.raises(config.ConfigErrors) as caught:
        config.load(path, bundled=HERE / "bundled")
    return caught.value


def comments(path: Path) -> list[bytes]:
    """Return the comment lines that the messages of a configuration make."""
    messages = str(refused(path)).replace(f"{HERE}/", "").splitlines()
    assert all(re.match(r"[^ :]+(:\d+:\d+)?: ", message) for message in messages), messages
    return [COMMENT + message.removeprefix(f"{path.name}:").lstrip().encode() + b"\n" for message in messages]


def rewrite(path: Path) -> None:
    """Replace the comments. A first pass makes room, so that the second one finds the final line numbers."""
    for _ in range(2):
        lines = path.read_bytes().splitlines(keepends=True)
        body = [line for line in lines if not line.startswith(COMMENT)]
        path.write_bytes(b"".join(comments(path) + body))


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name.removesuffix(".bad.yaml"))
def test_broken_config_is_reported_with_its_exact_message(path: Path, update_expected: bool) -> None:
    if update_expected:
        rewrite(path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert comments(path) == list(takewhile(lambda line: line.startswith(COMMENT), lines))


def test_file_without_a_byte_is_reported_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "zero_bytes.yaml"
    path.touch()
    assert str(refused(path)) == f"{path}: the file is empty; write programs: and a list below it"


def test_there_are_enough_broken_configs() -> None:
    assert len(BROKEN) >= 40


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name.removesuffix(".bad.yaml"))
def test_every_message_has_a_place_and_says_what_would_be_right(path: Path) -> None:
    found = refused(path).findings
    assert [f.mark.order for f in found] == sorted(f.mark.order for f in found)
    for finding in found:
        # The decoders word their own mistakes.
        assert "; " in finding.text or re.search(r"decoder|decode is empty", finding.text), finding
        assert finding.mark.line > 0 or "file is empty" in finding.text
