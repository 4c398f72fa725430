"""Recordings are replayed as they were, or refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.collecting import recording
from exporter.collecting.maps.table import Entries
from exporter.collecting.text.exposition import render
from exporter.decoders import Names
from exporter.kernel import bpf
from exporter.kernel.enums import KernelEnums
from exporter.program import Map, Member, Program, State, Type
from exporter.spec import DecodeStep, LabelSpec, MetricSpec, ProgramSpec

U32, U64 = Type("int", "u32", 4), Type("int", "u64", 8)
KEY = Type("struct", "key_t", 8, members=(Member("family", 0, U32), Member("reason", 32, U32)))
PROGRAM = Program("p", State.RUNNING, maps=(Map("m", bpf.BPF_MAP_TYPE_PERCPU_HASH, 8, 8, 9, key=KEY, value=U64),))
SPEC = ProgramSpec(
    name="p",
    variants=[],
    source=Path("/somewhere/p.c"),
    text="secret",
    metrics=[
        MetricSpec(
            name="x_total",
            type="counter",
            help="h",
            map="m",
            labels=[
                LabelSpec(name="family", field="family", decode=[DecodeStep(name="map", argument={2: "ipv4"})]),
                LabelSpec(name="reason", field="reason", decode=[DecodeStep(name="enum", argument="why")]),
            ],
        )
    ],
)
ENUMS = KernelEnums(None, {"why": {5: "WHY_NOT"}, "unused": {1: "X"}})


class OneEntry:
    def read(self) -> Entries:
        key = np.array([[2, 0, 0, 0, 5, 0, 0, 0]], np.uint8)
        return Entries(key, np.array([[[1] + [0] * 7, [2] + [0] * 7]], np.uint8))


def recorded() -> dict[str, Any]:
    document = recording.record(PROGRAM, SPEC, {"m": OneEntry()}, possible=[0, 1], online=[0], enums=ENUMS)
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def test_a_recording_is_replayed_on_a_host_without_that_kernel(tmp_path: Path) -> None:
    collector = recording.replay(recorded(), Names.open(proc=tmp_path, sys=tmp_path))
    page = render(collector.collect(), openmetrics=False).decode()
    assert page.endswith('x_total{family="ipv4",reason="WHY_NOT"} 3\n')


def test_a_recording_holds_the_maps_and_no_more_of_the_host_than_needed() -> None:
    document = recorded()
    assert document["maps"] == {"m": [["0200000005000000", "0100000000000000", "0200000000000000"]]}
    assert document["kernel_enums"] == {"why": {"5": "WHY_NOT"}}
    assert "secret" not in json.dumps(document)
    assert "somewhere" not in json.dumps(document)


def test_an_empty_map_is_replayed(tmp_path: Path) -> None:
    document = recorded()
    document["maps"]["m"] = []
    collector = recording.replay(document, Names.open(proc=tmp_path, sys=tmp_path))
    assert [len(f.series.sets) for f in collector.collect()] == [0]
    assert collector.report.success


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="recording of format 99, expected 2"):
        recording.replay({**recorded(), "format": 99}, Names.open(proc=tmp_path, sys=tmp_path))


def test_bytes_of_another_size_are_refused(tmp_path: Path) -> None:
    document = recorded()
    document["maps"]["m"][0][0] = "02"
    with pytest.raises(ValueError, match="map m: the entries recorded do not have its sizes"):
        recording.replay(document, Names.open(proc=tmp_path, sys=tmp_path))


class Stacks(OneEntry):
    def read(self) -> Entries:
        stack = struct.pack("=3Q", 0xFFFFFFFF81000001, 0xFFFFFFFF81000100, 0)
        return Entries(np.array([[7, 0, 0, 0]], np.uint8), np.frombuffer(stack, np.uint8).reshape(1, 1, 24))


def test_stacks_and_system_calls_are_those_of_the_recording(tmp_path: Path) -> None:
    stacks = Map("stacks", bpf.BPF_MAP_TYPE_STACK_TRACE, 4, 24, 16)
    labels = [
        LabelSpec(name="stack", field="family", decode=[DecodeStep(name="kstack", argument="stacks")]),
        LabelSpec(name="call", field="reason", decode=[DecodeStep(name="syscall")]),
    ]
    spec = SPEC.model_copy(update={"metrics": [SPEC.metrics[0].model_copy(update={"labels": labels})]})
    program = Program("p", State.RUNNING, maps=(*PROGRAM.maps, stacks))

    class Keyed(OneEntry):
        def read(self) -> Entries:
            one = super().read()
            return Entries(np.array([[7, 0, 0, 0, 63, 0, 0, 0]], np.uint8), one.values)

    document = recording.record(
        program, spec, {"m": Keyed(), "stacks": Stacks()}, possible=[0, 1], online=[0], enums=ENUMS
    )
    (tmp_path / "kallsyms").write_text("ffffffff81000000 T do_one\nffffffff81000100 T do_two\n")
    for machine, call in (("x86_64", "uname"), ("aarch64", "read")):
        replayed = recording.replay(
            json.loads(json.dumps({**document, "machine": machine})), Names.open(proc=tmp_path, sys=tmp_path)
        )
        assert list(replayed.collect()[0].series.sets) == [(call, "do_one;do_two")]
        assert replayed.report.entries["stacks"] == 1
