"""The slot functions of exporter.h in the kernel, at each edge: a value equal to a bound is in that bound's bucket."""

from __future__ import annotations

import ctypes
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from exporter.loading.build import Host
from exporter.spec import BucketSpec, MetricSpec
from tests.kernel import bundled
from tests.kernel.bundled import Running
from tests.kernel.programs import NR_GETPPID, host, point, spec

MAGIC = secrets.randbelow(1 << 31)
WIDTH, STEPS = 50, 20
EDGES = sorted({value for power in range(64) for value in ((1 << power) - 1, 1 << power, (1 << power) + 1)})

OBSERVE = """
struct exp2 { u64 slots[65]; u64 sum; };
struct exp2zero { u64 slots[66]; u64 sum; };
struct linear { u64 slots[22]; u64 sum; };
struct low { u64 slots[12]; u64 sum; };

BPF_ARRAY(by_exp2, struct exp2, 1);
BPF_ARRAY(by_exp2zero, struct exp2zero, 1);
BPF_ARRAY(by_linear, struct linear, 1);
BPF_PERCPU_ARRAY(by_exp2_low, struct low, 1);
BPF_PERCPU_ARRAY(alone, struct low, 1);
BPF_PERCPU_ARRAY(microseconds, u64, 1);

int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
	struct exp2 *exp2;
	struct exp2zero *exp2zero;
	struct linear *linear;
	struct low *low, *own;
	u64 value, *total;
	int only = 0;

	if (ctx->args[1] != NR_GETPPID || PEEK(PT_REGS_PARM2(regs)) != MAGIC)
		return 0;
	value = PEEK(PT_REGS_PARM1(regs));
	exp2 = by_exp2.lookup(&only);
	exp2zero = by_exp2zero.lookup(&only);
	linear = by_linear.lookup(&only);
	low = by_exp2_low.lookup(&only);
	own = alone.lookup(&only);
	total = microseconds.lookup(&only);
	if (!exp2 || !exp2zero || !linear || !low || !own || !total)
		return 0;
	observe(exp2->slots, &exp2->sum, exp2_slot(value), value);
	observe(exp2zero->slots, &exp2zero->sum, exp2zero_slot(value), value);
	observe(linear->slots, &linear->sum, linear_slot(value, WIDTH), value);
	observe(low->slots, &low->sum, exp2_slot(value), value);
	observe_alone(own->slots, &own->sum, exp2_slot(value), value);
	lock_xadd(total, whole_microseconds(value));
	return 0;
}
"""

HISTOGRAMS = {
    "by_exp2": BucketSpec(type="exp2", min=0, max=63),
    "by_exp2zero": BucketSpec(type="exp2zero", min=0, max=64),
    "by_linear": BucketSpec(type="linear", width=WIDTH, min=0, max=STEPS),
    "by_exp2_low": BucketSpec(type="exp2", min=3, max=10),
    "alone": BucketSpec(type="exp2", min=3, max=10),
}
BOUNDS = {
    "by_exp2": [2.0**power for power in range(64)],
    "by_exp2zero": [0.0, *(2.0**power for power in range(64))],
    "by_linear": [float(step * WIDTH) for step in range(STEPS + 1)],
    "by_exp2_low": [2.0**power for power in range(3, 11)],
    "alone": [2.0**power for power in range(3, 11)],
}


@pytest.fixture(scope="module")
def this_host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def observing(this_host: Host) -> Iterator[Running]:
    """Fresh maps for each test: the largest values wrap a sum round, as the kernel's own u64 does."""
    program = spec(OBSERVE, [point("raw_tracepoint", "sys_enter", "on_enter")]).model_copy(
        update={
            "defines": {"NR_GETPPID": NR_GETPPID, "MAGIC": MAGIC, "WIDTH": WIDTH},
            "metrics": [
                MetricSpec(name="microseconds_total", type="counter", help="x", map="microseconds"),
                *(
                    MetricSpec(
                        name=name, type="histogram", help=name, map=name, slots="slots", sum="sum", buckets=buckets
                    )
                    for name, buckets in HISTOGRAMS.items()
                ),
            ],
        }
    )
    with bundled.running(program, this_host) as running:
        yield running


def observe(values: Iterable[int]) -> None:
    libc = ctypes.CDLL(None)
    for value in values:
        libc.syscall(ctypes.c_long(NR_GETPPID), ctypes.c_ulong(value), ctypes.c_ulong(MAGIC))


def bucket(bounds: list[float], value: int) -> float:
    """The smallest bound that is not below the value; compared as whole numbers, which doubles of this size are not."""
    place = bisect_left([int(bound) for bound in bounds], value)
    return bounds[place] if place < len(bounds) else float("inf")


@pytest.mark.parametrize("name", ["by_exp2", "by_exp2zero", "by_exp2_low", "alone"])
def test_powers_of_two_and_their_neighbours(observing: Running, name: str) -> None:
    observe(EDGES)
    assert observing.scrape().buckets(name) == Counter(bucket(BOUNDS[name], value) for value in EDGES)


def test_multiples_of_a_width_and_their_neighbours(observing: Running) -> None:
    values = [value for step in range(STEPS + 3) for value in (step * WIDTH - 1, step * WIDTH, step * WIDTH + 1)][1:]
    observe(values)
    seen = observing.scrape()
    assert seen.buckets("by_linear") == Counter(bucket(BOUNDS["by_linear"], value) for value in values)
    assert seen.sum("by_linear_sum") == sum(values)


def test_microseconds_are_whole_ones_below_and_above_what_a_multiplication_can_do(observing: Running) -> None:
    """Up to 2^35 ns by the multiplication, beyond by division; 125 and 1000 are where a rounded factor would show."""
    edges = (0, 125, 1000, 999_000, 1 << 32, (1 << 35) - 1000, 1 << 35, 3_600_000_000_000)
    values = sorted(
        {edge // step * step + near for edge in edges for step in (1, 125, 1000) for near in (0, 1, 7, 999)}
    )
    for value in values:
        before = observing.scrape().sum("microseconds_total")
        observe([value])
        assert observing.scrape().sum("microseconds_total") - before == value // 1000, value
