"""A million events on two CPUs into each kind of map, counted to the event while the maps are read all the time."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import pytest

from exporter.spec import LabelSpec, MetricSpec
from tests.kernel import bundled
from tests.kernel.bundled import Samples
from tests.kernel.programs import NR_GETPPID, host, point, spec

EVENTS = 500_000  # on each CPU
KEYS = 1000
DRIVER = Path(__file__).parent / "workloads/getppid.c"
EXACT = ("in_hash", "in_percpu_hash", "in_array", "in_percpu_array")
APPROXIMATE = ("in_lru_hash", "in_lru_percpu_hash")
CPUS = sorted(os.sched_getaffinity(0))[:2]

COUNT_KEYS = """
BPF_HASH(in_hash, u32, u64, KEYS);
BPF_PERCPU_HASH(in_percpu_hash, u32, u64, KEYS);
BPF_ARRAY(in_array, u64, KEYS);
BPF_PERCPU_ARRAY(in_percpu_array, u64, KEYS);
BPF_TABLE("lru_hash", u32, u64, in_lru_hash, KEYS);
BPF_TABLE("lru_percpu_hash", u32, u64, in_lru_percpu_hash, KEYS);

int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
	u64 zero = 0;
	u32 key;

	if (ctx->args[1] != NR_GETPPID || PEEK(PT_REGS_PARM2(regs)) != MAGIC)
		return 0;
	key = PEEK(PT_REGS_PARM1(regs));
	add(in_hash.lookup_or_try_init(&key, &zero), 1, LOST(in_hash));
	add(in_percpu_hash.lookup_or_try_init(&key, &zero), 1, LOST(in_percpu_hash));
	add(in_array.lookup(&key), 1, LOST(in_array));
	add(in_percpu_array.lookup(&key), 1, LOST(in_percpu_array));
	add(in_lru_hash.lookup_or_try_init(&key, &zero), 1, LOST(in_lru_hash));
	add(in_lru_percpu_hash.lookup_or_try_init(&key, &zero), 1, LOST(in_lru_percpu_hash));
	return 0;
}
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    built = tmp_path / "getppid"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", built, DRIVER], check=True)
    return built


def counters() -> list[MetricSpec]:
    label = LabelSpec(name="key", field="key")
    return [
        MetricSpec(name=f"{name}_total", type="counter", help=name, map=name, labels=[label], max_series=KEYS)
        for name in (*EXACT, *APPROXIMATE)
    ]


def test_a_million_events_on_two_cpus_are_counted_to_the_event(driver: Path, tmp_path: Path) -> None:
    assert len(CPUS) == 2, "this test needs two CPUs"
    magic = secrets.randbelow(1 << 31)
    program = spec(COUNT_KEYS, [point("raw_tracepoint", "sys_enter", "on_enter")]).model_copy(
        update={"metrics": counters(), "defines": {"NR_GETPPID": NR_GETPPID, "KEYS": KEYS, "MAGIC": magic}}
    )
    with bundled.running(program, host(tmp_path / "artifacts")) as running:
        drivers = [subprocess.Popen([driver, str(cpu), str(EVENTS), str(KEYS), str(magic)]) for cpu in CPUS]
        scrapes: list[Samples] = []
        while any(process.poll() is None for process in drivers):
            scrapes.append(running.scrape())
        assert [process.returncode for process in drivers] == [0, 0]
        last = running.scrape()
    amid = [scrape.sum(f"{EXACT[0]}_total") for scrape in scrapes]
    assert any(0 < total < 2 * EVENTS for total in amid), "nothing was read while it counted"
    each = {frozenset({("key", str(key))}): 2.0 * EVENTS / KEYS for key in range(KEYS)}
    for name in EXACT:
        assert last.of(f"{name}_total") == each, name
        totals = [scrape.sum(f"{name}_total") for scrape in (*scrapes, last)]
        assert totals == sorted(totals), f"{name} went down between two scrapes"
    # A full LRU map throws out entries that are in use, and what they counted is gone.
    for name in APPROXIMATE:
        assert 0 < last.sum(f"{name}_total") <= 2 * EVENTS, name
