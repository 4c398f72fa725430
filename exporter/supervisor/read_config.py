"""The configuration as a daemon reads it: in a child, which takes pydantic and PyYAML (16 MB) with it when it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter import config
from exporter.config.findings import lines
from exporter.config.sources import Sources
from exporter.ipc import isolated
from exporter.spec import Config


@dataclass(frozen=True, slots=True)
class ConfigResult:
    """config    None where the files have mistakes
    mistakes  where and what: (file:line:column, sentence), in the order of reading
    warnings  matters of taste, in the same form
    sources   the files
    """

    config: Config | None
    mistakes: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    sources: Sources = field(default_factory=Sources)


def read(path: Path, trust_owner: Sequence[int]) -> ConfigResult:
    """Files of a daemon, which must belong to root or to `trust_owner`. OSError where there is no process to be had."""
    outcome = isolated.run_isolated(lambda _: json.dumps(answer(path, trust_owner)))
    if outcome.answer:
        return understood(json.loads(outcome.answer))
    return ConfigResult(None, ((str(path), f"read: the process that reads it ended with {outcome.last_words}"),))


def answer(path: Path, trust_owner: Sequence[int]) -> dict[str, Any]:
    """In a child: JSON values of what `read` gives."""
    try:
        loaded = config.load(path, trust_owner=trust_owner, enforce_owner=True)
    except config.ConfigErrors as errors:
        return {"mistakes": lines(errors.findings), "sources": errors.sources.to_json()}
    return {
        "config": loaded.config.model_dump(),
        "warnings": lines(loaded.warnings),
        "sources": loaded.sources.to_json(),
    }


def understood(document: Mapping[str, Any]) -> ConfigResult:
    """What was given to `answer`'s document."""
    return ConfigResult(
        Config.model_validate(document["config"]) if "config" in document else None,
        tuple((place, text) for place, text in document.get("mistakes", ())),
        tuple((place, text) for place, text in document.get("warnings", ())),
        Sources.from_json(document["sources"]),
    )
