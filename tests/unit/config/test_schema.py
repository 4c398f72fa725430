"""The JSON Schema of the configuration is current, and accepts and refuses what `config.load` does.

`pytest tests/unit/config/test_schema.py --update-expected` rewrites docs/configuration.schema.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from exporter import config
from exporter.config.bundled import bundled_dir, names
from exporter.config.nodes import compose, plain

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "docs" / "configuration.schema.json"
BROKEN = Path(__file__).resolve().parent / "bad_configs"


def valid(path: Path, definition: str | None = None) -> bool:
    """Return True if jsonschema accepts a file by our schema, or by one definition in it."""
    schema = config.json_schema()
    root = compose(path.read_text(), str(path)).root
    assert root is not None
    start = {"$defs": schema["$defs"], "$ref": f"#/$defs/{definition}"} if definition else schema
    return bool(Draft202012Validator(start).is_valid(plain(root)))


def test_the_schema_itself_is_valid() -> None:
    Draft202012Validator.check_schema(config.json_schema())


def test_the_committed_schema_is_current(update_expected: bool) -> None:
    text = json.dumps(config.json_schema(), indent=2) + "\n"
    if update_expected:
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
