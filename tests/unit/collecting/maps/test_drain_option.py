"""`drain`: which maps can have it, what the C text becomes, and what there is to say of maps that forget."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.binding import totals_layout
from exporter.binding.bind import BindingError, approximations, bind_all
from exporter.kernel import bpf
from exporter.loading.compiling import source
from exporter.loading.lint import rules
from exporter.program import DRAIN_BARRIER, DRAIN_EPOCHS, ODD, Map, Type, hidden, pair
from exporter.spec import MapOptions, MetricSpec, ProgramSpec, VariantSpec

U32, U64 = Type("int", "u32", 4), Type("int", "u64", 8)
PAIR = (
    Map("sends", bpf.BPF_MAP_TYPE_HASH, 4, 8, 100, key=U32, value=U64, drain_index=0),
    Map("sends" + ODD, bpf.BPF_MAP_TYPE_HASH, 4, 8, 100, key=U32, value=U64),
)
DRAIN = {"sends": MapOptions(drain=True)}


def metric(kind: str = "counter", **more: object) -> MetricSpec:
    fields = {"name": "x", "type": kind, "help": "h", "map": "sends", "labels": [], **more}
    return MetricSpec(**fields)  # type: ignore[arg-type]


def refused(maps: tuple[Map, ...], given: MetricSpec | None = None) -> str:
    with pytest.raises(BindingError) as caught:
        bind_all([given or metric()], maps, DRAIN)
    return str(caught.value)


def test_a_pair_is_bound_as_drained() -> None:
    [binding] = bind_all([metric()], PAIR, DRAIN)
    assert binding.drained
    assert not bind_all([metric()], PAIR)[0].drained
    assert totals_layout.layout([binding], 2, 128).drained == ("sends",)
    assert totals_layout.layout(bind_all([metric()], PAIR), 2, 128).drained == ()


ONE_MAP = (
    "the C text has one map of this name, and draining takes two"
    " (declare it with DRAINED_HASH(sends, ...) and choose by ODD(sends))"
)
FORGETS = "an LRU map forgets entries before they are read (declare it with DRAINED_HASH() in the C text)"
CANNOT = "map type {} cannot be read and deleted without loss (use DRAINED_HASH() in the C text)"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (bpf.BPF_MAP_TYPE_HASH, ONE_MAP),
        (bpf.BPF_MAP_TYPE_LRU_HASH, FORGETS),
        (bpf.BPF_MAP_TYPE_ARRAY, CANNOT.format(2)),
        (bpf.BPF_MAP_TYPE_LPM_TRIE, CANNOT.format(11)),
    ],
)
def test_what_cannot_be_drained_is_refused_with_what_can(kind: int, why: str) -> None:
    one = Map("sends", kind, 4, 8, 100, key=U32, value=U64)
    assert refused((one,)) == f"maps sends: drain: {why}"


def test_a_gauge_of_a_drained_map_is_refused() -> None:
    assert refused(PAIR, metric("gauge")) == (
        "metric x: map sends is drained, and a gauge shows what is there (make it a counter, or leave drain out)"
    )


def test_the_pairs_of_the_c_text_are_numbered_by_name() -> None:
    text = """
        /* DRAINED_HASH(comment, u32, u64, 1); */
        DRAINED_PERCPU_HASH( times, struct key, struct value, 10);
        DRAINED_HASH(hits, u32, u64, 10);
        int f(void *ctx) { return lost(LOST(hits)); }
    """
    program = ProgramSpec(name="p", variants=[], source=Path("p.c"), text=text, metrics=[])
    assembled = source.assemble(program, VariantSpec(attach=[]), "HEADER")
    assert assembled.drained == ("hits", "times")
    assert assembled.text.startswith(
        "enum { lost_hits, lost_count };\n#define LOST_UPDATES 1\n"
        "enum { drained_hits, drained_times, drained_count };\n#define DRAINED_MAPS 1\n"
    )


def test_a_pair_of_which_one_half_is_never_asked_for_is_told() -> None:
    asked = "DRAINED_HASH(hits, u32, u64, 10); int f(void *ctx) { return ODD(hits); }"
    program = ProgramSpec(name="p", variants=[], source=Path("p.c"), text=asked, metrics=[])
    assert rules.findings(program) == []
    assert rules.findings(program.model_copy(update={"text": asked.replace("ODD(hits)", "0")})) == [
        "p.c:1: DRAINED_HASH(hits): nothing asks which half is live (write ODD(hits) ? "
        "hits_odd.lookup_or_try_init(&key, &zero) : hits.lookup_or_try_init(&key, &zero))"
    ]


def test_the_exporters_own_maps_are_hidden_and_the_server_writes_to_them() -> None:
    assert pair("sends") == ("sends", "sends_odd", DRAIN_EPOCHS, DRAIN_BARRIER)
    assert [hidden(name, PAIR) for name in pair("sends")] == [False, True, True, True]
    assert not hidden("sends_odd", (PAIR[1],))


def test_metrics_of_lru_maps_are_said_to_be_approximate() -> None:
    lru = Map("sends", bpf.BPF_MAP_TYPE_LRU_PERCPU_HASH, 4, 8, 100, key=U32, value=U64)
    assert approximations([metric(), metric(name="off", enabled=False)], (lru,)) == (
        "approximate, as entries are forgotten to make room: x (LRU map sends); DRAINED_HASH() counts exactly"
    )
    assert approximations([metric()], PAIR) == ""
