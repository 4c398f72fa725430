"""tcp_rst against resets of every kind, made in a network namespace of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import Reason, State
from exporter.spec import Requirements
from tests.kernel import bundled
from tests.kernel.bundled import Labels, Running, Samples
from tests.kernel.programs import host
from tests.kernel.workloads import namespaces, resets

RESETS = "ebpf_tcp_resets_total"
NAMES = ("direction", "kind", "state", "reason", "family", "port")
PORT = 20000 + os.getpid() % 10000  # below what the kernel gives out by itself, so nobody else's
COUNT = 23
ATTEMPTS = 5  # others on this host reset connections too; a run that they disturbed is repeated


@pytest.fixture(scope="module")
def this_host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def tcp_rst(this_host: Host) -> Iterator[Running]:
    with bundled.running(bundled.spec("tcp_rst"), this_host) as running:
        yield running


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with namespaces.namespace(f"rst{os.getpid()}") as name:
        yield name


def expected(rows: list[list[object]]) -> dict[Labels, float]:
    return {frozenset(zip(NAMES, map(str, row[:-1]), strict=True)): float(str(row[-1])) for row in rows}


def out_resets_by_namespace() -> dict[str, int]:
    """TcpOutRsts of every network namespace that a process is in, by the namespace."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found[os.readlink(process / "ns/net")] = (process / "net/snmp").read_text()
        except OSError:
            continue  # it ended meanwhile
    return {name: resets.parse_out_resets(text) for name, text in found.items()}


def test_each_kind_is_counted_to_the_reset(tcp_rst: Running, namespace: str) -> None:
    rise: Samples
    for _ in range(ATTEMPTS):
        others, before = out_resets_by_namespace(), tcp_rst.scrape()
        own = namespaces.call(namespace, resets.out_resets)
        made = expected(namespaces.call(namespace, resets.make, COUNT, PORT))
        sent = namespaces.call(namespace, resets.out_resets) - own
        rise = tcp_rst.settled(RESETS, sum(made.values()), before)
        if out_resets_by_namespace() == others:
            break
    else:
        pytest.fail(f"resets of others in each of {ATTEMPTS} runs: this host is too busy to count on")
    assert rise.of(RESETS) == made
    assert rise.sum(RESETS, direction="sent") == sent, "sent resets differ from the kernel's own TcpOutRsts"


def test_resets_with_the_port_of_a_listener_are_exact_whatever_others_do(tcp_rst: Running, namespace: str) -> None:
    before = tcp_rst.scrape()
    made = expected(namespaces.call(namespace, resets.make, COUNT, PORT))
    own = {labels: number for labels, number in made.items() if ("port", str(PORT)) in labels}
    assert tcp_rst.settled(RESETS, sum(own.values()), before, port=str(PORT)).of(RESETS, port=str(PORT)) == own


def test_a_port_that_was_listened_on_before_loading_has_its_number(
    namespace: str, this_host: Host, tmp_path: Path
) -> None:
    port = PORT + 10000
    finish = namespaces.start(namespace, resets.strays_when_told, COUNT, port, str(tmp_path / "go"))
    namespaces.call(namespace, namespaces.wait_for_listener, port)
    with bundled.running(bundled.spec("tcp_rst"), this_host) as running:
        before = running.scrape()
        (tmp_path / "go").touch()
        finish()
        rise = running.settled(RESETS, COUNT, before, port=str(port))
        assert rise.sum(RESETS, port=str(port), state="listen", kind="reply", direction="sent") == COUNT
        # Its listener is gone: the same segments now come to a closed port.
        before = running.scrape()
        namespaces.call(namespace, resets.strays, COUNT, port)
        assert not running.scrape().since(before).of(RESETS, port=str(port))


def test_without_the_reason_field_it_counts_another_way_or_is_skipped(this_host: Host) -> None:
    """As on 5.10 and 6.1: fentry or kprobes, and on a kernel with neither nothing, rather than half the truth."""
    program = bundled.spec("tcp_rst")
    lacking = Requirements(tracepoint_field=["tcp:tcp_send_reset.no_such_field"])
    variants = [v.model_copy(update={"requires": lacking} if v.name == "tracepoint" else {}) for v in program.variants]
    outcome, descriptors = load_program(program.model_copy(update={"variants": variants}), this_host)
    descriptors.close()
    has_kprobes = Path("/sys/bus/event_source/devices/kprobe").exists()
    assert outcome.state is (State.RUNNING if has_kprobes else State.SKIPPED), outcome.text
    assert outcome.attempts[0].reason is Reason.REQUIRES
    if not has_kprobes:
        assert [(attempt.variant, attempt.reason) for attempt in outcome.attempts[1:]] == [
            ("fentry", Reason.UNSUPPORTED),
            ("kprobe", Reason.UNSUPPORTED),
        ]
