"""A program's configuration survives the way to the server and into recordings."""

from __future__ import annotations

import json
from pathlib import Path

from exporter.spec import AttachSpec, DecodeStep, LabelSpec, MetricSpec, ProgramSpec, VariantSpec


def test_a_program_with_number_keys_comes_back_equal() -> None:
    decode = [
        DecodeStep(name="map", argument={0: "read", 1: "write"}, unknown="other"),
        DecodeStep(name="map", argument={"pairs": "x"}),
        DecodeStep(name="enum", argument="skb_drop_reason", options={"strip": "SKB_"}),
    ]
    metric = MetricSpec(
        name="a_total", type="counter", help="h", map="m", labels=[LabelSpec(name="op", field="op", decode=decode)]
    )
    variant = VariantSpec(attach=[AttachSpec(kind="kprobe", targets=["f"], function="g")])
    program = ProgramSpec(name="p", variants=[variant], metrics=[metric], source=Path("/p.c"), text="int x;")
    sent = json.loads(json.dumps(program.model_dump(mode="json")))
    assert ProgramSpec.model_validate(sent) == program
