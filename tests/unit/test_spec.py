"""Models of the configuration: what becomes of JSON values, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter.spec import AttachSpec, BucketSpec, ProgramSpec, Requirements, VariantSpec

PROGRAM = {
    "name": "p",
    "variants": [{"name": "a", "attach": [{"kind": "kprobe", "targets": ["f"], "function": "g"}]}],
    "metrics": [{"name": "x", "type": "gauge", "help": "h", "map": "m", "scale": 2, "buckets": {"bounds": [1, 2.5]}}],
    "defines": {"N": 1, "WORD": "x"},
    "source": "/p.c",
    "text": "int x;",
}


def test_json_values_become_models() -> None:
    program = ProgramSpec.model_validate(PROGRAM)
    assert program.source == Path("/p.c")
    assert program.variants[0].attach[0] == AttachSpec(kind="kprobe", targets=["f"], function="g")
    assert program.metrics[0].buckets == BucketSpec(bounds=[1.0, 2.5])
    assert repr(program.metrics[0].scale) == "2.0"
    assert program.requires == Requirements()


def test_models_within_values_are_taken_as_they_are() -> None:
    variant = VariantSpec(name="a", attach=[])
    assert ProgramSpec.model_validate({**PROGRAM, "variants": [variant]}).variants == [variant]


def test_models_do_not_change_and_share_no_defaults() -> None:
    one = Requirements()
    with pytest.raises(AttributeError):
        one.kernel = ">=6"  # type: ignore[misc]
    assert one.module is not Requirements().module
    assert one.model_copy(update={"kernel": ">=6"}) == Requirements(kernel=">=6")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"nmae": "p"}, "ProgramSpec: no field nmae"),
        ({"name": 1}, "ProgramSpec.name: 1 is of another type"),
        ({"enabled": "yes"}, "ProgramSpec.enabled: 'yes' is of another type"),
        ({"line": True}, "ProgramSpec.line: True is of another type"),
        ({"defines": {"N": 1.5}}, "ProgramSpec.defines: 1.5 is of another type"),
        ({"variants": {}}, "ProgramSpec.variants: {} is of another type"),
        ({"variants": [{"name": "a"}]}, "VariantSpec: .* missing 1 required keyword-only argument: 'attach'"),
        ({"metrics": [{**PROGRAM["metrics"][0], "type": "sum"}]}, "MetricSpec.type: 'sum' is of another type"),  # type: ignore[index]
        ({"metrics": [{**PROGRAM["metrics"][0], "slot": 1}]}, "MetricSpec.slot: 1 is of another type"),  # type: ignore[index]
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        ProgramSpec.model_validate({**PROGRAM, **changed})


def test_a_daemon_has_no_checker_of_files_in_memory() -> None:
    code = (
        "import sys, exporter.commands.run, exporter.supervisor.supervisor, exporter.server.registry\n"
        "print(*sorted({'asyncio', 'bcc', 'pydantic', 'pygments', 'rich', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
