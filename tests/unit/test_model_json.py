"""A program's configuration survives the way to the server and into recordings."""

from __future__ import annotations

import json
from pathlib import Path

from exporter.config import model


def test_a_program_with_number_keys_comes_back_equal() -> None:
    decode = [
        model.Decode(name="map", argument={0: "read", 1: "write"}, unknown="other"),
        model.Decode(name="map", argument={"pairs": "x"}),
        model.Decode(name="enum", argument="skb_drop_reason", options={"strip": "SKB_"}),
    ]
    metric = model.Metric(
        name="a_total", type="counter", help="h", map="m", labels=[model.Label(name="op", field="op", decode=decode)]
    )
    variant = model.Variant(attach=[model.AttachPoint(kind="kprobe", targets=["f"], function="g")])
    program = model.Program(name="p", variants=[variant], metrics=[metric], source=Path("/p.c"), text="int x;")
    sent = json.loads(json.dumps(program.model_dump(mode="json")))
    assert model.Program.model_validate(sent) == program
