"""What unit tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from exporter import log


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """The lines that this process logged since the test began, as logfmt."""
    path = tmp_path / "exporter.log"
    with path.open("w") as stream:
        log.configure("info", "logfmt", stream)
        yield lambda: path.read_text().splitlines()
        structlog.reset_defaults()
