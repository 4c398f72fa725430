"""Generated structs: clang lays them out, the kernel fills them, and we find each value in its place."""

from __future__ import annotations

import os
import random
import struct

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from exporter.binding.bind import bind
from exporter.binding.paths import resolve
from exporter.collecting.maps import columns
from exporter.collecting.maps.open import open_tables
from exporter.collecting.series.labels import LabelTexts
from exporter.decoders import Names
from exporter.kernel import cpus
from exporter.program import Program
from exporter.spec import LabelSpec, MetricSpec
from tests.kernel.layouts import ENUM, Maker, Struct
from tests.kernel.loaded import RAW, Load
from tests.kernel.programs import spec

STRUCTS = 30  # in one compile


def c_text(structs: list[Struct]) -> str:
    """Fills each struct in the map of its name, and writes down what clang says of its size and offsets."""
    lines = [ENUM]
    lines += [s.definition for s in structs]
    lines += [f"BPF_ARRAY({s.name}, struct {s.name}, 1);" for s in structs]
    lines += [
        f"struct {s.name}_said {{ u32 size; u32 offsets[{len(s.members)}]; }}; "
        f"BPF_ARRAY({s.name}_c, struct {s.name}_said, 1);"
        for s in structs
    ]
    lines += ["int on_raw(struct bpf_raw_tracepoint_args *ctx) {", "u32 first = 0;"]
    lines += ["if (ctx->args[1] != NR_GETPPID) return 0;"]
    for s in structs:
        lines.append(f"struct {s.name} *{s.name}_v = {s.name}.lookup(&first); if (!{s.name}_v) return 0;")
        lines += [f"{s.name}_v->{w.path} = {w.constant};" for w in s.members]
        lines.append(f"struct {s.name}_said *{s.name}_d = {s.name}_c.lookup(&first); if (!{s.name}_d) return 0;")
        lines.append(f"{s.name}_d->size = sizeof(struct {s.name});")
        lines += [
            f"{s.name}_d->offsets[{index}] = __builtin_offsetof(struct {s.name}, {w.path});"
            for index, w in enumerate(s.members)
            if not w.bit_field
        ]
    return "\n".join([*lines, "return 0;", "}"])


def check(structs: list[Struct], outcome: Program, fds: dict[str, int]) -> None:
    tables = open_tables(outcome, fds, cpus.possible())
    for s in structs:
        map_ = outcome.map(s.name)
        assert map_ is not None
        assert map_.value is not None
        entries = tables[s.name].read()
        said = struct.unpack(f"=I{len(s.members)}I", tables[f"{s.name}_c"].read().values.tobytes())
        assert map_.value.size == said[0], s.definition
        for index, w in enumerate(s.members):
            where = (w.path, s.definition)
            label = LabelSpec(name="x", field=f"value.{w.path}")
            metric = MetricSpec(name="x", type="gauge", help="h", map=s.name, value=w.path, labels=[label])
            bound = bind(metric, map_)
            assert bound.value is not None
            assert int(columns.numbers(entries.values, bound.value).item()) == w.number, where
            texts = LabelTexts(bound.labels, Names.empty(), cpus.possible_numbers())
            assert list(texts.resolve(entries, 0.0).labels) == [(w.text,)], where
            if not w.bit_field:
                assert resolve(map_.value, w.path, "value").offset == said[1 + index], where


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking would compile for minutes; the message names the struct
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 2**32))
def test_generated_structs_are_read_as_clang_laid_them_out(load: Load, seed: int) -> None:
    maker = Maker(random.Random(seed))
    structs = [maker.struct(f"t{number}") for number in range(STRUCTS)]
    outcome, descriptors = load(spec(c_text(structs), [RAW]))
    assert outcome.text == "", c_text(structs)
    os.getppid()
    check(structs, outcome, descriptors.readonly)
    assert sum(len(s.members) for s in structs) > STRUCTS
