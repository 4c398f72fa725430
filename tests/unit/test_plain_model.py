"""Models of the configuration: what becomes of JSON values, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter.config import model

PROGRAM = {
    "name": "p",
    "variants": [{"name": "a", "attach": [{"kind": "kprobe", "targets": ["f"], "function": "g"}]}],
    "metrics": [{"name": "x", "type": "gauge", "help": "h", "map": "m", "scale": 2, "buckets": {"bounds": [1, 2.5]}}],
    "defines": {"N": 1, "WORD": "x"},
    "source": "/p.c",
    "text": "int x;",
}


def test_json_values_become_models() -> None:
    program = model.Program.model_validate(PROGRAM)
    assert program.source == Path("/p.c")
    assert program.variants[0].attach[0] == model.AttachPoint(kind="kprobe", targets=["f"], function="g")
    assert program.metrics[0].buckets == model.Buckets(bounds=[1.0, 2.5])
    assert repr(program.metrics[0].scale) == "2.0"
    assert program.requires == model.Requires()


def test_models_within_values_are_taken_as_they_are() -> None:
    variant = model.Variant(name="a", attach=[])
    assert model.Program.model_validate({**PROGRAM, "variants": [variant]}).variants == [variant]


def test_models_do_not_change_and_share_no_defaults() -> None:
    one = model.Requires()
    with pytest.raises(AttributeError):
        one.kernel = ">=6"  # type: ignore[misc]
    assert one.module is not model.Requires().module
    assert one.model_copy(update={"kernel": ">=6"}) == model.Requires(kernel=">=6")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"nmae": "p"}, "Program: no field nmae"),
        ({"name": 1}, "Program.name: 1 is of another type"),
        ({"enabled": "yes"}, "Program.enabled: 'yes' is of another type"),
        ({"line": True}, "Program.line: True is of another type"),
        ({"defines": {"N": 1.5}}, "Program.defines: 1.5 is of another type"),
        ({"variants": {}}, "Program.variants: {} is of another type"),
        ({"variants": [{"name": "a"}]}, "Variant: .* missing 1 required keyword-only argument: 'attach'"),
        ({"metrics": [{**PROGRAM["metrics"][0], "type": "sum"}]}, "Metric.type: 'sum' is of another type"),  # type: ignore[index]
        ({"metrics": [{**PROGRAM["metrics"][0], "slot": 1}]}, "Metric.slot: 1 is of another type"),  # type: ignore[index]
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        model.Program.model_validate({**PROGRAM, **changed})


def test_a_daemon_has_no_checker_of_files_in_memory() -> None:
    code = (
        "import sys, exporter.start, exporter.supervisor, exporter.server, exporter.configuration\n"
        "print(*sorted({'asyncio', 'bcc', 'pydantic', 'pygments', 'rich', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
