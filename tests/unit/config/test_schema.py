"""The JSON Schema of the configuration: current, and of one mind with what `config.load` accepts.

`REWRITE=1 pytest tests/unit/config/test_schema.py` writes docs/configuration.schema.json anew.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from exporter import config
from exporter.config.bundled import bundled_dir, names
from exporter.config.positions import compose, plain

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "docs" / "configuration.schema.json"
BROKEN = Path(__file__).resolve().parent / "bad_configs"
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is what a schema says: the keywords that ours uses, and no other, by JSON Schema 2020-12."""
    known = {
        *("$ref", "$defs", "$schema", "title", "description", "default", "type", "enum", "const", "pattern"),
        *("properties", "patternProperties", "additionalProperties", "required", "minProperties"),
        *("items", "minItems", "uniqueItems"),
        *("anyOf", "oneOf", "allOf", "minimum", "exclusiveMinimum"),
    }
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root):
        return False
    if "type" in schema:
        if not isinstance(value, TYPES[schema["type"]]):
            return False
        if isinstance(value, bool) != (schema["type"] == "boolean"):
            return False
    checks = [
        "enum" not in schema or value in schema["enum"],
        "const" not in schema or value == schema["const"],
        "anyOf" not in schema or any(fits(value, each, root) for each in schema["anyOf"]),
        "oneOf" not in schema or sum(fits(value, each, root) for each in schema["oneOf"]) == 1,
        "allOf" not in schema or all(fits(value, each, root) for each in schema["allOf"]),
    ]
    if isinstance(value, str):
        checks.append("pattern" not in schema or re.search(schema["pattern"], value) is not None)
    elif isinstance(value, list):
        checks.append(len(value) >= schema.get("minItems", 0))
        checks.append(not schema.get("uniqueItems") or len(set(map(str, value))) == len(value))
        checks += [fits(item, schema["items"], root) for item in value if "items" in schema]
    elif isinstance(value, dict):
        checks.append(set(schema.get("required", ())) <= set(value))
        checks.append(len(value) >= schema.get("minProperties", 0))
        for key, item in value.items():
            by_pattern = [each for p, each in schema.get("patternProperties", {}).items() if re.search(p, str(key))]
            named = [schema["properties"][key]] if key in schema.get("properties", {}) else []
            checks += [fits(item, each, root) for each in named + by_pattern]
            if not named and not by_pattern:
                checks.append(schema.get("additionalProperties", True) is not False)
    elif isinstance(value, int | float):
        checks.append(value >= schema.get("minimum", value))
        checks.append("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
    return all(checks)


def valid(path: Path, definition: str | None = None) -> bool:
    schema = config.json_schema()
    root = compose(path.read_text(), str(path)).root
    assert root is not None
    return fits(plain(root), schema["$defs"][definition] if definition else schema, schema)


def test_the_committed_schema_is_current() -> None:
    text = json.dumps(config.json_schema(), indent=2) + "\n"
    if os.environ.get("REWRITE"):
        COMMITTED.write_text(text)
    assert COMMITTED.read_text() == text


@pytest.mark.parametrize("name", names(bundled_dir()))
def test_bundled_entry_fits_the_schema_of_a_program(name: str) -> None:
    assert valid(bundled_dir() / f"{name}.yaml", "ProgramDocument")


def test_the_example_fits_the_schema() -> None:
    assert valid(ROOT / "config.example.yaml")


# Mistakes in single keys: JSON Schema can say them all.
SINGLE = [
    *(
        "unknown_key_program",
        "unknown_key_metric",
        "unknown_key_bucket",
        "program_name",
        "program_without_name",
    ),
    *(
        "metric_name",
        "metric_type",
        "metric_value",
        "metric_scale",
        "metric_max_series",
        "label_path",
        "seed_unknown",
    ),
    *(
        "attach_two_kinds",
        "attach_no_kind",
        "no_attach",
        "no_c_text",
        "label_field_and_const",
        "requires_spelling",
    ),
    *(
        "number_for_text",
        "boolean_for_text",
        "use_path",
        "use_not_built",
        "not_built_attach_kinds",
        "defines",
    ),
]


@pytest.mark.parametrize("name", SINGLE)
def test_a_mistake_in_a_key_does_not_fit_the_schema(name: str) -> None:
    assert not valid(BROKEN / f"{name}.bad.yaml")


def test_every_key_has_a_description() -> None:
    schema = config.json_schema()
    for definition in [schema, *schema["$defs"].values()]:
        for key, each in definition.get("properties", {}).items():
            assert each.get("description"), key
