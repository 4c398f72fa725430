"""Stacks that the kernel kept, as labels: by id out of a map of stack traces, and from a field of the key."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables
from exporter.decoders import Names
from exporter.kernel import cpus
from exporter.spec import DecodeStep, LabelSpec, MetricSpec
from tests.kernel.loaded import RAW, Load
from tests.kernel.programs import spec

CALLS = 23
ENTRY = {"x86_64": "do_syscall_64", "aarch64": "el0_svc"}[os.uname().machine]

TEXT = """
struct by_id { u32 process; s64 stack; };
struct by_frames { u32 process; u32 pad; u64 frames[16]; };

BPF_STACK_TRACE(stacks, 1024);
BPF_HASH(ids, struct by_id, u64, 1024);
BPF_HASH(whole, struct by_frames, u64, 1024);
BPF_PERCPU_ARRAY(scratch, struct by_frames, 1);

int on_raw(struct bpf_raw_tracepoint_args *ctx)
{
	struct by_id key = {};
	struct by_frames *frames;
	u64 zero = 0;
	u32 first = 0;

	if (ctx->args[1] != NR_GETPPID)
		return 0;
	key.process = bpf_get_current_pid_tgid() >> 32;
	key.stack = stacks.get_stackid(ctx, 0);
	add(ids.lookup_or_try_init(&key, &zero), 1, LOST(ids));
	frames = scratch.lookup(&first);
	if (!frames)
		return 0;
	__builtin_memset(frames, 0, sizeof(*frames));
	frames->process = key.process;
	bpf_get_stack(ctx, frames->frames, sizeof(frames->frames), 0);
	add(whole.lookup_or_try_init(frames, &zero), 1, LOST(whole));
	return 0;
}
"""


def metric(map_: str, field: str, decode: DecodeStep) -> MetricSpec:
    labels = [LabelSpec(name="process", field="process"), LabelSpec(name="stack", field=field, decode=[decode])]
    return MetricSpec(name=f"calls_by_{map_}_total", type="counter", help="h", map=map_, labels=labels)


@pytest.fixture
def names() -> Iterator[Names]:
    opened = Names.open()
    yield opened
    opened.close()


def test_a_stack_is_the_same_by_id_and_by_frames_and_names_the_way_into_the_kernel(load: Load, names: Names) -> None:
    program = spec(TEXT, [RAW]).model_copy(
        update={
            "metrics": [
                metric("ids", "stack", DecodeStep(name="kstack", argument="stacks")),
                metric("whole", "frames", DecodeStep(name="kstack")),
            ]
        }
    )
    outcome, fds = load(program)
    assert outcome.text == ""
    for _ in range(CALLS):
        os.getppid()
    collector = ProgramCollector(
        outcome,
        program,
        open_tables(outcome, fds.readonly, cpus.possible()),
        names,
        possible=cpus.possible_numbers(),
        online=cpus.online,
        label_length=4096,
    )
    by_id, by_frames = collector.collect()
    assert collector.report.error == ""
    found = []
    for family in (by_id, by_frames):
        mine = {
            labels[1]: int(value)
            for labels, value in zip(family.series.sets, family.values, strict=True)
            if labels[0] == str(os.getpid())
        }
        assert sum(mine.values()) == CALLS
        found.append(mine)
    assert found[0] == found[1]
    for stack in found[0]:
        assert ENTRY in stack.split(";")
        assert "??" not in stack
    assert 1 <= collector.report.entries["stacks"] <= 1024
