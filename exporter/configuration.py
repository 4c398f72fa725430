"""The configuration as a daemon reads it: in a child, which takes pydantic and PyYAML (16 MB) with it when it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter import config
from exporter.config import model
from exporter.loading import separate


@dataclass(frozen=True, slots=True)
class Read:
    """config    None where the files have mistakes
    errors    every mistake with its position, "" without
    warnings  matters of taste, a line each
    """

    config: model.Config | None
    errors: str = ""
    warnings: tuple[str, ...] = ()


def read(path: Path, trust_owner: Sequence[int]) -> Read:
    """Files of a daemon, which must belong to root or to `trust_owner`. OSError where there is no process to be had."""
    outcome = separate.run(lambda _: _answer(path, trust_owner))
    if not outcome.answer:
        last = outcome.output.strip().rpartition("\n")[2]
        how = f"signal {-outcome.status}" if outcome.status < 0 else f"exit code {outcome.status}"
        return Read(None, f"{path}: read: the process that reads it ended with {how}: {last or 'no word'}")
    document = json.loads(outcome.answer)
    if document["errors"]:
        return Read(None, document["errors"])
    return Read(model.Config.model_validate(document["config"]), warnings=tuple(document["warnings"]))


def _answer(path: Path, trust_owner: Sequence[int]) -> str:
    """In the child: JSON of what `read` gives."""
    try:
        loaded = config.load(path, trust_owner=trust_owner, enforce_owner=True)
    except config.ConfigErrors as errors:
        return json.dumps({"errors": str(errors)})
    return json.dumps({"errors": "", "config": loaded.config.model_dump(), "warnings": list(map(str, loaded.warnings))})
