"""The JSON Schema of the configuration file for editors, generated from the documents (draft 2020-12)."""

from __future__ import annotations

from typing import Any

from exporter.config.document import MainFile
from exporter.spec import ATTACH_KINDS

# Cross-checks that JSON Schema can express.
_EXACTLY_ONE = {
    "AttachDocument": ATTACH_KINDS,
    "LabelDocument": ("field", "const"),
}
_EXACTLY_ONE_PAIRS = {"ProgramDocument": (("source", "code"), ("attach", "variants"))}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the main file."""
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
    """Remove what only Python needs: null types and defaults, and titles from field names."""
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
        types = [choice for choice in choices if choice != {"type": "null"}]
        if len(types) == 1:
            del schema["anyOf"]
            for key, value in types[0].items():
                schema.setdefault(key, value)
        else:
            schema["anyOf"] = types
    for value in schema.values():
        _plain(value)
