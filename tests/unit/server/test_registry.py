"""The server's programs: taken from the supervisor, replaced, and scraped by several threads meanwhile."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.collecting.collector import ProgramCollector
from exporter.decoders import Names
from exporter.ipc import messages, protocol
from exporter.ipc.protocol import ConfigState, Message, ProgramList, ProgramState, ReloadReport, WebState
from exporter.kernel import bpf, memfd
from exporter.program import Map, Program, State, Type
from exporter.server import process
from exporter.server.registry import ProgramRegistry
from exporter.spec import Limits, MetricSpec, ProgramSpec, WebSettings
from exporter.web.page import Page

U64 = Type("int", "u64", 8)
A_MAP = Map("m", bpf.BPF_MAP_TYPE_HASH, 8, 8, 16, key=U64, value=U64)


def programs() -> ProgramRegistry:
    return ProgramRegistry(Names.empty(), Limits(series=1000), unprivileged=True)


def message(name: str, state: State = State.RUNNING, map: str = "m", totals: bool = False) -> ProgramState:  # noqa: A002
    """A program with one map, whose metric reads the map named."""
    metric = MetricSpec(name=f"{name}_total", type="counter", help="h", map=map, labels=[])
    spec = ProgramSpec(name=name, variants=[], metrics=[metric], source=Path("x.c"), text="")
    maps = ("m",) if state is State.RUNNING else ()
    return ProgramState(Program(name, state, maps=(A_MAP,)), spec, maps, totals)


def a_descriptor() -> int:
    """Not a map's: whoever reads it is refused by the kernel, which a program has to bear."""
    return os.memfd_create("no map")


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def page(source: ProgramRegistry) -> list[str]:
    return b"".join(source.exposition(None, openmetrics=False).plain).decode().splitlines()


def test_a_program_that_is_replaced_gives_its_descriptors_back() -> None:
    source = programs()
    source.update(ProgramList(("a",)))
    fds = [a_descriptor() for _ in range(3)]
    for fd in fds:
        source.update(message("a"), [fd])
        page(source)
    assert [is_open(fd) for fd in fds] == [False, False, True]
    source.update(message("a", State.FAILED))
    assert not is_open(fds[-1])
    assert 'bpf_exporter_program_state{program="a",state="failed"} 1' in page(source)


def test_a_message_about_a_program_that_runs_on_leaves_its_maps_and_totals_alone() -> None:
    source = programs()
    source.update(ProgramList(("a",)))
    first, second, other = a_descriptor(), a_descriptor(), a_descriptor()
    memory = memfd.of_size("totals", 1 << 20)
    changed = message("a", totals=True)
    changed = replace(changed, program=replace(changed.program, variant="another"))
    source.update(message("a", totals=True), [first, memory])
    source.update(changed, [second, again := os.dup(memory)])
    assert [is_open(fd) for fd in (first, memory, second, again)] == [True, True, False, False]
    assert source.programs()[0].variant == "another"
    # Loaded anew: another memory. The number of the first one may be in use again.
    was = os.fstat(first).st_ino
    source.update(message("a", totals=True), [other, memfd.of_size("totals", 1 << 20)])
    assert not is_open(first) or os.fstat(first).st_ino != was
    assert is_open(other)


def states(source: ProgramRegistry) -> dict[str, str]:
    return {program.name: program.state.value for program in source.programs()}


def test_other_programs_take_their_places_all_at_once() -> None:
    source = programs()
    source.update(ProgramList(("a", "b")))
    kept, gone = a_descriptor(), a_descriptor()
    source.update(message("a"), [kept])
    source.update(message("b"), [gone])
    # Another order, one gone, two new; one of those that stay is told of.
    source.update(
        ProgramList(
            (
                "d",
                "a",
                "c",
            ),
            3,
        )
    )
    source.update(message("c"), [a_descriptor()])
    source.update(message("d"), [a_descriptor()])
    assert states(source) == {"a": "running", "b": "running"}
    assert is_open(gone)
    source.update(message("a", State.FAILED))
    assert states(source) == {"d": "running", "a": "failed", "c": "running"}
    assert not is_open(gone)
    assert not is_open(kept)
    source.update(ProgramList(()))
    assert states(source) == {}
    assert source.ready()


def test_a_scrape_that_is_under_way_sees_all_of_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the program that goes away, and waits for the lock that the exchange holds."""
    source = programs()
    source.update(ProgramList(("a",)))
    source.update(message("a"), [a_descriptor()])
    reached, go_on, collect = threading.Event(), threading.Event(), ProgramCollector.collect

    def slow(self: ProgramCollector) -> Any:
        if self.program.name == "a":
            reached.set()
            go_on.wait(60)
        return collect(self)

    monkeypatch.setattr(ProgramCollector, "collect", slow)
    answers: list[list[str]] = []
    scrape = threading.Thread(target=lambda: answers.append(page(source)))
    scrape.start()
    assert reached.wait(60)
    source.update(ProgramList(("b",), 1))
    exchange = threading.Thread(target=source.update, args=(message("b"), [a_descriptor()]))
    exchange.start()  # waits for the collection
    go_on.set()
    exchange.join()
    scrape.join()
    (answer,) = answers
    of = {name for name in "ab" if f'bpf_exporter_program_state{{program="{name}",state="running"}} 1' in answer}
    assert len(of) == 1
    assert page(source) != answer or of == {"b"}


def test_limits_and_the_report_of_the_configuration_can_change() -> None:
    source = programs()
    report = ReloadReport("ab", timestamp=1.5, successful=False, disabled=False, reloads=1, failures=1)
    limits = Limits(series=7, label_length=9)
    source.update(ConfigState(report, limits))
    source.update(ProgramList(()))
    assert 'bpf_exporter_config_info{sha256="ab"} 1' in page(source)
    source.update(ConfigState(replace(report, successful=True), limits))
    assert "bpf_exporter_config_last_reload_successful 1" in page(source)


class Peer:
    """A supervisor's end of a socket whose other end is followed in a thread."""

    def __init__(self, source: ProgramRegistry) -> None:
        self.sock, theirs = messages.pair()
        self._thread = threading.Thread(target=process.follow, args=(theirs, source, lambda: None))
        self._thread.start()

    def send(self, document: object, *fds: int) -> None:
        messages.send(self.sock, json.dumps(document).encode(), fds)
        messages.close(fds)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)  # what it sends is not to be a broken pipe
        self._thread.join()
        self.sock.close()


def as_document(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(protocol.encode(message))
    return document


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"version": None},
        {"kind": "flying"},
        {"kind": "loaded"},
        {"kind": ["program"]},
        {"program": None},
        {"program": {"name": "a", "state": "flying"}},
        {"spec": {"nonsense": True}},
        {"maps": ["m", "n"]},
        {"maps": ["m"], "totals": True},
        {"maps": None},
        {"new": 1},
    ],
)
def test_a_message_that_is_not_understood_changes_nothing(
    change: dict[str, Any], logged: Callable[[], list[str]]
) -> None:
    source = programs()
    source.update(ProgramList(("a",)))
    good = a_descriptor()
    source.update(message("a"), [good])
    before = len(os.listdir("/proc/self/fd"))
    peer = Peer(source)
    peer.send({**as_document(message("a")), **change}, a_descriptor())
    peer.end()
    assert is_open(good)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert 'bpf_exporter_program_state{program="a",state="running"} 1' in page(source)
    (line,) = [line for line in logged() if "not understood" in line]
    assert "the programs go on as they are" in line


def test_a_program_that_was_never_understood_has_failed_and_keeps_nobody_waiting() -> None:
    source = programs()
    source.update(ProgramList(("a",)))
    peer = Peer(source)
    peer.send({**as_document(message("a")), "spec": 7}, a_descriptor())
    assert protocol.receive_ready(peer.sock) is not None
    peer.end()
    assert source.ready()
    (program,) = source.programs()
    assert program.text == (
        "a: collect: the supervisor's message was not understood:"
        " ValueError: ProgramState.spec: 7 is of another type (restart both)"
    )
    assert 'bpf_exporter_program_variant_info{program="a",reason="internal",variant=""} 1' in page(source)
    peer = Peer(source)
    peer.send({**as_document(ProgramList(())), "programs": 7})
    peer.end()
    assert source.ready()


def test_an_exchange_ends_with_a_message_that_is_not_understood() -> None:
    source = programs()
    source.update(ProgramList(("a",)))
    source.update(message("a"), [kept := a_descriptor()])
    peer = Peer(source)
    peer.send(as_document(ProgramList(("a", "b"), following=2)))
    peer.send({**as_document(message("a")), "spec": 7}, a_descriptor())
    peer.send(as_document(message("b")), a_descriptor())
    peer.end()
    assert states(source) == {"a": "running", "b": "running"}
    assert is_open(kept)


def test_programs_are_replaced_while_many_scrape(logged: Callable[[], list[str]]) -> None:
    source = programs()
    source.update(ProgramList(("a",)))
    wrong: list[Exception] = []
    ended = threading.Event()

    def scrape() -> None:
        while not ended.is_set():
            try:
                page(source)
            except Exception as error:  # noqa: BLE001
                wrong.append(error)
                return

    threads = [threading.Thread(target=scrape) for _ in range(6)]
    for thread in threads:
        thread.start()
    fds = [a_descriptor() for _ in range(200)]
    for fd in fds:
        source.update(message("a"), [fd])
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [is_open(fd) for fd in fds] == [False] * (len(fds) - 1) + [True]


def test_programs_are_collected_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the caches of names, which are not made for threads."""
    inside: list[int] = []
    most: list[int] = []
    collect = ProgramCollector.collect

    def watched(self: ProgramCollector) -> Any:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.01)
        inside.pop()
        return collect(self)

    monkeypatch.setattr(ProgramCollector, "collect", watched)
    source = programs()
    names = ["a", "b", "c", "d"]
    source.update(ProgramList(tuple(names)))
    for name in names:
        source.update(message(name), [a_descriptor()])
    ask: Callable[[str], Page] = lambda name: source.exposition(frozenset([name]), openmetrics=False)  # noqa: E731
    threads = [threading.Thread(target=ask, args=(name,)) for name in names * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * len(names)  # each once, whoever else asked


def test_a_program_that_cannot_be_collected_fails_alone(logged: Callable[[], list[str]]) -> None:
    source = programs()
    source.update(ProgramList(("bad", "good")))
    source.update(message("bad", map="other"), [a_descriptor()])
    source.update(message("good"), [a_descriptor()])
    lines = page(source)
    assert 'bpf_exporter_program_state{program="bad",state="failed"} 1' in lines
    assert 'bpf_exporter_program_state{program="good",state="running"} 1' in lines
    assert source.programs()[0].text.startswith("bad: collect: metric bad_total: no map")
    assert source.ready()
    assert "level=error" in logged()[0]


def test_a_fault_that_stays_is_logged_once(logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.server.registry.SHARED", 0.0)
    source = programs()
    source.update(ProgramList(("a",)))
    source.update(message("a"), [a_descriptor()])
    for _ in range(3):
        assert 'bpf_exporter_program_collect_success{program="a"} 0' in page(source)
    (line,) = logged()
    assert "a: collect metric a_total: read map m: BPF_MAP_" in line


def test_it_is_ready_when_every_program_was_tried() -> None:
    source = programs()
    assert not source.ready()
    source.update(ProgramList(("a", "b")))
    source.update(message("a", State.SKIPPED))
    source.update(message("b", State.LOADING))
    assert not source.ready()
    source.update(message("b"), [a_descriptor()])
    assert source.ready()


def test_a_web_configuration_that_cannot_be_used_is_a_failed_reload(logged: Callable[[], list[str]]) -> None:
    class OutOfDescriptors:
        def apply(self, settings: WebSettings | None) -> None:
            if settings is not None and settings.burst == 2:
                raise OSError(24, "Too many open files")

    registry = programs()
    registry.access_control = OutOfDescriptors()  # type: ignore[assignment]
    for burst in (1, 2):
        registry.update(WebState(WebSettings(burst=burst), successful=True, timestamp=float(burst)), [])
    lines = page(registry)
    assert "bpf_exporter_web_config_last_reload_successful 0" in lines
    assert "bpf_exporter_web_config_last_reload_success_timestamp_seconds 1.0" in lines
    assert "web configuration cannot be used" in logged()[0]
