"""Every variant of the bundled programs on every kernel: exact where it runs, refused rightly elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from tests.matrix.examine import Examined
from tests.matrix.guest.programs import BUCKET, DELAY, REQUESTS
from tests.matrix.kernels import NO_TRAMPOLINES, TESTED

Matrix = Callable[[str], Examined]

# Where each variant runs, in the order in which the exporter tries them.
EVERYWHERE = TESTED
TRAMPOLINES = tuple(series for series in TESTED if series not in NO_TRAMPOLINES)
SINCE_6_12 = ("6.12", "7.2", "arm64-6.12")
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "tcp_rst": {"tracepoint": SINCE_6_12, "fentry": TRAMPOLINES, "kprobe": EVERYWHERE},  # `reason` is 6.10
    "tcp_sendmsg": {"fexit": TRAMPOLINES, "tracepoint": SINCE_6_12, "kretprobe": EVERYWHERE},  # the event is 6.3
    "tcp_latency": {"fentry": TRAMPOLINES, "tracepoint": ("7.2",), "kprobe": EVERYWHERE},  # the event is 6.16
}
# Why a variant does not run where it does not: what the program `requires`, or an event that is not there.
REFUSED = {"tcp_rst": "requires", "tcp_sendmsg": "missing", "tcp_latency": "missing"}

every_kernel = pytest.mark.parametrize("series", TESTED)


def refusal(series: str, program: str, variant: str) -> str:
    """The reason's word of a variant that does not run there."""
    return "unsupported" if series in NO_TRAMPOLINES and variant in ("fentry", "fexit") else REFUSED[program]


def where(program: str, runs: bool) -> pytest.MarkDecorator:
    """Pairs of a series and a variant of the program that runs, or does not run, there."""
    pairs = [(s, v) for s, (v, kernels) in product(TESTED, VARIANTS[program].items()) if (s in kernels) is runs]
    return pytest.mark.parametrize(("series", "variant"), pairs)


def running(on: Matrix, series: str, program: str, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = on(series).value(f"program/{program}/{variant}")
    assert (found["state"], found["text"]) == ("running", ""), found["text"]
    assert found["cached"], "it was compiled there"
    return found


@every_kernel
def test_every_variant_compiles_here_against_types_of_that_kernel(on: Matrix, series: str) -> None:
    said = on(series).compiled
    assert {name for name in said if name.startswith("tcp_")} == {
        f"{program}/{variant}" for program, variants in VARIANTS.items() for variant in variants
    }
    assert not {name: text for name, text in said.items() if text}


@where("tcp_rst", runs=True)
def test_tcp_rst_counts_each_kind_and_as_many_as_the_kernel_sent(on: Matrix, series: str, variant: str) -> None:
    found = running(on, series, "tcp_rst", variant)
    # Only the tracepoint knows reasons, and before 6.12 only those of replies.
    made: dict[tuple[str, ...], int] = {}
    for *labels, number in found["made"]:
        if variant != "tracepoint":
            labels[3] = "none"
        made[tuple(labels)] = made.get(tuple(labels), 0) + number
    assert {tuple(labels): number for *labels, number in found["counted"]} == made
    assert found["sent"] == found["out_resets"] > 0


@where("tcp_sendmsg", runs=True)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_tcp_sendmsg_counts_calls_bytes_errors_and_sizes_exactly(
    on: Matrix, series: str, variant: str, family: str
) -> None:
    found = running(on, series, "tcp_sendmsg", variant)[family]
    assert found["counted"] == found["made"]
    assert found["made"]["errors"] > 0


@where("tcp_latency", runs=True)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_tcp_latency_finds_20_ms_in_the_bucket_that_holds_it(
    on: Matrix, series: str, variant: str, family: str
) -> None:
    found = running(on, series, "tcp_latency", variant)[family]
    # A busy host delays more than the line does. What user space saw late may be late; no more than that.
    assert found["late"] < REQUESTS, "every answer was late: the machine is too slow to tell a delay of 20 ms"
    for what, count, late in (("response", REQUESTS, found["late"]), ("connect", 1, found["late_connect"])):
        buckets = {float(bound): number for bound, number in found[what].items()}
        assert sum(buckets.values()) == count
        assert min(buckets) >= BUCKET, f"{what} shorter than the line is long"
        assert sum(number for bound, number in buckets.items() if bound > BUCKET) <= late
    assert REQUESTS * DELAY <= found["sum"] <= found["seen"]
    # To the server the first request answers nothing; of every segment with data it knows the smoothed round trip, and
    # a host so slow that TCP sends a segment again makes more of those.
    assert found["server"]["response"] == REQUESTS - 1
    assert REQUESTS <= found["server"]["srtt"] <= 2 * REQUESTS


@pytest.mark.parametrize(
    ("series", "program", "variant"),
    [
        (series, program, variant)
        for series, (program, variants) in product(TESTED, VARIANTS.items())
        for variant, kernels in variants.items()
        if series not in kernels
    ],
)
def test_variant_is_refused_where_its_event_is_not_there(on: Matrix, series: str, program: str, variant: str) -> None:
    found = on(series).value(f"program/{program}/{variant}")
    assert (found["state"], found["reason"]) != ("running", "")
    assert found["reason"] == refusal(series, program, variant), found["text"]


@every_kernel
@pytest.mark.parametrize("program", VARIANTS)
def test_first_variant_that_runs_is_the_one_used(on: Matrix, series: str, program: str) -> None:
    found = on(series).value(f"chosen/{program}")
    usable = [variant for variant, kernels in VARIANTS[program].items() if series in kernels]
    before = list(VARIANTS[program])[: list(VARIANTS[program]).index(usable[0])]
    assert (found["state"], found["variant"]) == ("running", usable[0]), found["text"]
    assert [(variant, reason) for variant, reason, _ in found["attempts"]] == [
        (v, refusal(series, program, v)) for v in before
    ]


@every_kernel
def test_a_program_compiles_on_that_kernel_itself_and_counts_exactly(on: Matrix, series: str) -> None:
    found = on(series).value("compiled_inside")
    assert (found["state"], found["text"]) == ("running", ""), found["text"]
    assert not found["cached"]
    assert found["compile_seconds"] > 0
    for family in ("ipv4", "ipv6"):
        assert found[family]["counted"] == found[family]["made"]
