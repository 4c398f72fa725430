"""The web configuration as the supervisor reads it: in a child, which takes pydantic, PyYAML and OpenSSL with it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.config.findings import ConfigErrors, lines
from exporter.config.sources import Sources
from exporter.ipc import isolated


@dataclass(frozen=True, slots=True)
class WebConfigResult:
    """settings  as JSON values (web/config/settings.py); None where the files have mistakes
    mistakes   where and what: (file:line:column, sentence), in the order of the file
    warnings   in the same form
    sources    the file and the certificates
    """

    settings: Mapping[str, Any] | None = field(repr=False)
    mistakes: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    sources: Sources = field(default_factory=Sources)


def read(path: Path, trust_owner: Collection[int]) -> WebConfigResult:
    """OSError where there is no process to be had."""
    outcome = isolated.run_isolated(lambda _: json.dumps(answer(path, trust_owner)))
    if outcome.answer:
        return understood(json.loads(outcome.answer))
    return WebConfigResult(None, ((str(path), f"read: the process that reads it ended with {outcome.last_words}"),))


def answer(path: Path, trust_owner: Collection[int]) -> dict[str, Any]:
    """In a child: JSON values of what `read` gives."""
    from exporter.web.config import web_file
    from exporter.web.config.settings import to_json

    try:
        loaded = web_file.load(path, {0, os.geteuid(), *trust_owner})
    except ConfigErrors as errors:
        return {"mistakes": lines(errors.findings), "sources": errors.sources.to_json()}
    return {
        "settings": to_json(loaded.settings),
        "warnings": lines(loaded.warnings),
        "sources": loaded.sources.to_json(),
    }


def understood(document: Mapping[str, Any]) -> WebConfigResult:
    """What was given to `answer`'s document."""
    return WebConfigResult(
        document.get("settings"),
        tuple((place, text) for place, text in document.get("mistakes", ())),
        tuple((place, text) for place, text in document.get("warnings", ())),
        Sources.from_json(document["sources"]),
    )
