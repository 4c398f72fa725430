"""tcp_latency against a line whose delay is known: every sample in the bucket that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel import bundled
from tests.kernel.bundled import Running, Samples
from tests.kernel.programs import host
from tests.kernel.workloads import delays, namespaces

pytestmark = pytest.mark.alone

RESPONSE, CONNECT, SRTT = (f"ebpf_tcp_{what}_seconds" for what in ("response", "connect", "srtt"))
PORT = 20000 + os.getpid() % 10000
COUNT = 50
DELAY = 0.020
BUCKET = 0.032768  # that holds 20 ms: 2^15 us; the one below ends at 16.384 ms
FAMILIES = ("ipv4", "ipv6")


@pytest.fixture(scope="module")
def tcp_latency(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with bundled.running(bundled.spec("tcp_latency"), host(tmp_path_factory.mktemp("artifacts"))) as running:
        yield running


@pytest.fixture(scope="module")
def line() -> Iterator[tuple[str, str]]:
    with delays.delayed(f"lat{os.getpid()}", DELAY) as names:
        yield names


def talk(line: tuple[str, str], family: str) -> dict[str, Any]:
    """One connection with COUNT requests; what user space measured."""
    client, server = line
    finish = namespaces.start(server, delays.echo, family, PORT, 1)
    namespaces.call(server, namespaces.wait_for_listener, PORT)
    seen: dict[str, Any] = namespaces.call(client, delays.ask, family, PORT, COUNT)
    finish()
    return seen


def check(rise: Samples, metric: str, count: int, late: int, **labels: str) -> None:
    """Of `count` samples all are in the bucket, but for at most `late` that this machine itself delayed further."""
    buckets = rise.buckets(metric, **labels)
    assert not [bound for bound in buckets if DELAY / 10 < bound < BUCKET], (metric, labels, buckets)
    above = sum(number for bound, number in buckets.items() if bound > BUCKET)
    assert above <= late, (metric, labels, buckets)
    assert buckets.get(BUCKET, 0) + above == count, (metric, labels, buckets)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sample_is_in_the_bucket_that_holds_it(tcp_latency: Running, line: tuple[str, str], family: str) -> None:
    for _ in range(5):
        before = tcp_latency.scrape()
        seen = talk(line, family)
        rise = tcp_latency.scrape().since(before)
        late = sum(1 for seconds in seen["answers"] if seconds > BUCKET)
        if late < COUNT / 4:
            break  # else the machine was too busy to tell a delay of 20 ms
    assert late < COUNT / 4

    client = {"family": family, "role": "client", "port": "ephemeral"}
    check(rise, RESPONSE, COUNT, late, **client)
    check(rise, CONNECT, 1, int(seen["connect"] > BUCKET), **client)
    # Of the server the first request is no answer to anything, and its pause holds the client's way and the line's.
    server = {"family": family, "role": "server", "port": str(PORT)}
    assert rise.sum(f"{RESPONSE}_count", **server) == COUNT - 1
    assert rise.buckets(RESPONSE, **server).get(BUCKET, 0) >= COUNT - 1 - late
    assert rise.sum(f"{SRTT}_count", **server) == COUNT
    assert rise.sum(f"{SRTT}_count", **client) >= COUNT
    # The sum is what user space saw, less its own part of the way.
    total = rise.sum(f"{RESPONSE}_sum", **client)
    assert COUNT * DELAY <= total <= sum(seen["answers"])


def test_data_without_an_earlier_send_is_no_response(tcp_latency: Running) -> None:
    with namespaces.namespace(f"push{os.getpid()}") as name:
        before = tcp_latency.scrape()
        namespaces.call(name, delays.push, PORT, COUNT)
        rise = tcp_latency.scrape().since(before)
    server = {"role": "server", "port": str(PORT)}
    assert rise.sum(f"{SRTT}_count", **server) == COUNT
    assert rise.sum(f"{RESPONSE}_count", **server) == 0


def test_sockets_that_are_gone_take_no_place(tcp_latency: Running) -> None:
    with namespaces.namespace(f"gone{os.getpid()}") as name:
        before = len(tcp_latency.keys("connections"))
        for _ in range(COUNT):
            namespaces.call(name, delays.push, PORT, 1)
        assert len(tcp_latency.keys("connections")) - before < COUNT / 2, f"{2 * COUNT} sockets came and went"
