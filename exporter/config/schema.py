"""The JSON Schema of the configuration file, for editors: from the models that check it."""

from __future__ import annotations

from typing import Any

from exporter.config.document import MainFile
from exporter.spec import ATTACH_KINDS

# The YAML spelling of what cross-checks demand, as far as JSON Schema can say it.
_EXACTLY_ONE = {
    "AttachDocument": ATTACH_KINDS,
    "LabelDocument": ("field", "const"),
}
_EXACTLY_ONE_PAIRS = {"ProgramDocument": (("source", "code"), ("attach", "variants"))}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the main file."""
    schema = MainFile.model_json_schema()
    definitions = schema["$defs"]
    for name, keys in _EXACTLY_ONE.items():
        definitions[name]["oneOf"] = [{"required": [key]} for key in keys]
    for name, pairs in _EXACTLY_ONE_PAIRS.items():
        definitions[name]["allOf"] = [{"oneOf": [{"required": [key]} for key in pair]} for pair in pairs]
    _plain(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bpf-exporter configuration",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _plain(schema: Any) -> None:
    """Takes out what only Python means: null as a type, null defaults, titles made from field names."""
    if isinstance(schema, list):
        for item in schema:
            _plain(item)
        return
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("title"), str):
        del schema["title"]
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    if "patternProperties" in schema:
        schema["additionalProperties"] = False  # pydantic leaves this out for mappings whose keys have a pattern
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        kept = [choice for choice in choices if choice != {"type": "null"}]
        if len(kept) == 1:
            del schema["anyOf"]
            for key, value in kept[0].items():
                schema.setdefault(key, value)
        else:
            schema["anyOf"] = kept
    for value in schema.values():
        _plain(value)
