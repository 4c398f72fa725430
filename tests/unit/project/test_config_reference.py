"""docs/configuration.md: names every key, and its examples are configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter import config, decoders
from exporter.config import document

REFERENCE = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL)
DOCUMENTS = [each for each in vars(document).values() if isinstance(each, type) and issubclass(each, document.Document)]


def named(word: str) -> bool:
    return re.search(rf"`(limits\.)?{word}`", REFERENCE) is not None


@pytest.mark.parametrize("model", DOCUMENTS, ids=lambda model: model.__name__)
def test_every_key_is_named(model: type[document.Document]) -> None:
    missing = [key for key in [*model.model_fields, *model.not_built] if key != "cflags" and not named(key)]
    assert missing == []


def test_every_decoder_is_named_and_no_other_as_built() -> None:
    table = REFERENCE[REFERENCE.index("| decoder |") : REFERENCE.index("Without `decode`")]
    built = {
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1:2][0] if row else "")
    }
    assert built == set(decoders.all_decoders())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_a_configuration_without_a_warning(example: str, tmp_path: Path) -> None:
    for source in re.findall(r"source: (\S+)", example):
        (tmp_path / source).write_text("int x;\n")
    (tmp_path / "config.yaml").write_text(example)
    assert config.load(tmp_path / "config.yaml", strict=True).config.programs
