"""Broken configurations and their exact messages: bad_configs/NAME.bad.yaml and NAME.bad.txt.

`REWRITE=1 pytest tests/unit/config/test_bad_configs.py` writes the messages anew; review them like code.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from exporter import config

HERE = Path(__file__).resolve().parent / "bad_configs"
BROKEN = sorted(HERE.glob("*.bad.yaml"))


def messages(path: Path) -> str:
    with pytest.raises(config.ConfigErrors) as caught:
        config.load(path, bundled=HERE / "bundled")
    return str(caught.value).replace(f"{HERE}/", "") + "\n"


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name.removesuffix(".bad.yaml"))
def test_broken_config_is_reported_with_its_exact_message(path: Path) -> None:
    expected = path.with_suffix(".txt")
    found = messages(path)
    if os.environ.get("REWRITE"):
        expected.write_text(found)
    assert found == expected.read_text()


def test_there_are_enough_broken_configs_and_no_message_without_one() -> None:
    assert len(BROKEN) >= 40
    assert [path.with_suffix(".txt") for path in BROKEN] == sorted(HERE.glob("*.bad.txt"))


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name.removesuffix(".bad.yaml"))
def test_every_message_has_a_place_and_says_what_would_be_right(path: Path) -> None:
    with pytest.raises(config.ConfigErrors) as caught:
        config.load(path, bundled=HERE / "bundled")
    found = caught.value.findings
    assert [f.mark.order for f in found] == sorted(f.mark.order for f in found)
    for finding in found:
        # The decoders word their own mistakes.
        assert "; " in finding.text or re.search(r"decoder|decode is empty", finding.text), finding
        assert finding.mark.line > 0 or "file is empty" in finding.text
