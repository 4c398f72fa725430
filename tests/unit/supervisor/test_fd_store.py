"""The store of descriptors against a service manager's socket: what is kept at each instant, and what is taken over.

tests/e2e/test_systemd.py has the same with systemd itself.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.ipc import messages, protocol
from exporter.ipc.protocol import Stored, VersionError
from exporter.kernel import memfd
from exporter.program import Attachment, Descriptors, Map, Program, State, Type
from exporter.spec import AttachSpec, MapOptions, MetricSpec, ProgramSpec, VariantSpec
from exporter.supervisor.fd_store import FdStore
from exporter.supervisor.managed_program import ManagedProgram
from tests.waiting import until

LABEL_LENGTH = 128
DOCUMENT = re.compile(r"\d+\.d\d+")


class Manager:
    """Keeps descriptors as systemd does: none twice under two names, one message after the other, each a little late.

    history  what it kept after each message: names, with what a document among them says
    """

    def __init__(self, path: Path) -> None:
        self.kept: dict[str, int] = {}
        self.history: list[dict[str, Any]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self._sock, 4096, 4)
            time.sleep(0.002)
            words = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            if "FDSTORE" in words and not any(os.path.sameopenfile(fds[0], fd) for fd in self.kept.values()):
                assert words["FDPOLL"] == "0"
                self.kept[words["FDNAME"]] = fds.pop()
            elif "FDSTOREREMOVE" in words:
                fds = [self.kept.pop(words["FDNAME"])]
            for fd in fds:
                os.close(fd)
            if "END" in words:
                return
            self.history.append({name: self._said(name, fd) for name, fd in self.kept.items()})

    @staticmethod
    def _said(name: str, fd: int) -> Any:
        try:
            return protocol.decode(messages.read(fd), Stored) if DOCUMENT.fullmatch(name) else None
        except VersionError:
            return None

    def passed(self) -> list[tuple[str, int]]:
        """What the next start of the unit is given; it keeps its own."""
        return [(name, os.dup(fd)) for name, fd in self.kept.items()]

    def end(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"END=1", self._sock.getsockname())
        self._thread.join()
        self._sock.close()
        for fd in self.kept.values():
            os.close(fd)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.end()


def a_file() -> int:
    return os.memfd_create("a")


def spec(**changes: Any) -> ProgramSpec:
    metric = MetricSpec(name="a_total", type="counter", help="h", map="m")
    variant = VariantSpec(attach=[AttachSpec(kind="kprobe", targets=["f"], function="g")])
    fields: dict[str, Any] = {"variants": [variant], "metrics": [metric], "source": Path("a.c"), "text": "int a;"}
    return ProgramSpec(name="a", **{**fields, **changes})


def running(of: ProgramSpec) -> ManagedProgram:
    array = Map("m", 2, 4, 8, 1, key=Type("int", "u32", 4), value=Type("int", "u64", 8))
    program = Program("a", State.RUNNING, maps=(array,), attachments=(Attachment("kprobe", "f", "g", attached=True),))
    links = [a_file(), a_file()]
    fds = Descriptors(maps={"m": a_file()}, readonly={"m": a_file()}, programs={"g": a_file()}, links=links)
    return ManagedProgram(of, program, fds, memfd.of_size("totals", 4096), since=1.0)


def store_of(programs: list[ManagedProgram]) -> FdStore:
    return FdStore([], programs, LABEL_LENGTH)


def settle(manager: Manager, messages_: int) -> None:
    until(lambda: len(manager.history) >= messages_, lambda: manager.history, 30)


def whole(kept: dict[str, Any]) -> bool:
    """Whether a program can be taken over from this."""
    return any(said and {*said.names, said.totals} <= kept.keys() for said in kept.values())


def test_a_program_is_whole_in_the_store_at_every_instant_of_a_change(manager: Manager) -> None:
    """A kill -9 between any two messages must not lose what runs."""
    managed = running(spec())
    store = store_of([managed])
    store.work()
    stored = 5 + 1 + 1  # its descriptors, the memory of its totals, the document
    settle(manager, stored)
    assert [whole(kept) for kept in manager.history] == [False] * (stored - 1) + [True]
    # An event is opened anew on a CPU that came back; new totals get the number of the old ones.
    assert managed.totals is not None
    fresh, memory = a_file(), memfd.of_size("totals", 8192)
    os.close(managed.fds.links[1])
    managed.fds.links[1] = fresh
    os.dup2(memory, managed.totals)
    os.close(memory)
    store.work()
    settle(manager, stored + 6)
    assert [whole(kept) for kept in manager.history[stored:]] == [True] * 6
    (said,) = [said for said in manager.history[-1].values() if said]
    assert {*said.names, said.totals} | {"1.d2"} == manager.history[-1].keys()
    assert os.path.sameopenfile(manager.kept[said.totals], managed.totals)
    assert os.path.sameopenfile(manager.kept[said.names[-1]], fresh)
    managed.detach()


def test_the_manager_has_let_go_before_the_supervisor_detaches(manager: Manager) -> None:
    """Whoever closes an attachment last waits for the kernel, some 80 ms for a uprobe: that must not be PID 1."""
    managed = running(spec())
    store = store_of([managed])
    store.work()
    store.remove([managed])
    assert not manager.kept
    managed.detach()


def test_what_is_not_wanted_any_more_is_closed_by_the_manager_first(manager: Manager) -> None:
    managed = running(spec())
    store_of([managed]).work()
    settle(manager, 7)
    managed.detach()
    FdStore(manager.passed(), [], LABEL_LENGTH).adopt(lambda candidates: [""] * len(candidates))
    assert not manager.kept


@pytest.mark.parametrize(
    ("change", "taken_over", "same_totals"),
    [
        ({}, True, True),
        ({"source": Path("b.c"), "line": 3}, True, True),
        ({"budget": 0.5}, True, True),
        ({"metrics": [MetricSpec(name="a_total", type="counter", help="other", map="m")]}, True, True),
        ({"metrics": [MetricSpec(name="b_total", type="counter", help="h", map="m")]}, True, False),
        ({"text": "int b;"}, False, False),
        ({"maps": {"m": MapOptions(drain=True)}}, False, False),
    ],
    ids=["nothing", "place", "budget", "help", "metric", "text", "drain"],
)
def test_what_the_kernel_has_is_taken_over_whatever_its_metrics_are(
    manager: Manager, change: dict[str, Any], taken_over: bool, same_totals: bool
) -> None:
    before = running(spec())
    store_of([before]).work()
    settle(manager, 7)
    after = ManagedProgram.of(spec(**change))
    store = FdStore(manager.passed(), [after], LABEL_LENGTH)
    store.adopt(lambda candidates: [""] * len(candidates))
    assert (after.program.state is State.RUNNING) == taken_over
    assert (after.totals is not None) == same_totals
    if taken_over:
        assert os.path.sameopenfile(after.fds.maps["m"], before.fds.maps["m"])
        assert after.spec == spec(**change)
        store.remove([after])
    assert not manager.kept
    after.detach()
    before.detach()


def test_a_store_of_another_version_is_closed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    before = running(spec())
    store_of([before]).work()
    settle(manager, 7)
    after = ManagedProgram.of(spec())
    monkeypatch.setattr(Stored, "version", 2)
    FdStore(manager.passed(), [after], LABEL_LENGTH).adopt(lambda candidates: [""] * len(candidates))
    assert after.program.state is State.LOADING
    assert not manager.kept
    assert "protocol version 1, expected 2" in logged()[0]
    before.detach()


@pytest.mark.parametrize(
    ("changes", "difference", "reason"),
    [
        (None, "", "the configuration does not have it, or disables it"),
        ({"text": "int b;"}, "", "its C text, attach points, defines or maps are configured otherwise"),
        (
            {"metrics": [MetricSpec(name="a_total", type="counter", help="h", map="n")]},
            "",
            'metric a_total: no map \\"n\\" (the C text has: m)',
        ),
        ({}, "a file that it probes is another one", "a file that it probes is another one"),
    ],
    ids=["removed", "text", "metric", "bytecode"],
)
def test_the_log_says_why_a_program_is_not_adopted(
    manager: Manager,
    logged: Callable[[], list[str]],
    changes: dict[str, Any] | None,
    difference: str,
    reason: str,
) -> None:
    before = running(spec())
    store_of([before]).work()
    settle(manager, 7)
    wanted = [] if changes is None else [ManagedProgram.of(spec(**changes))]
    FdStore(manager.passed(), wanted, LABEL_LENGTH).adopt(lambda candidates: [difference] * len(candidates))
    (line,) = logged()
    assert 'event="program not adopted: it is detached" program=a error=' in line
    assert reason in line
    assert not manager.kept
    before.detach()


def test_one_stored_program_that_cannot_be_understood_leaves_the_others(
    manager: Manager, logged: Callable[[], list[str]]
) -> None:
    one, other = running(spec()), running(spec())
    store = store_of([one, other])
    store.work()
    settle(manager, 14)
    passed = dict(manager.passed())
    os.close(passed.pop("1.d1"))
    damaged = memfd.of_content("program", b'{"version": 1, "kind": "stored", "spec": 7}')
    after = ManagedProgram.of(spec())
    FdStore([*passed.items(), ("1.d1", damaged)], [after], LABEL_LENGTH).adopt(lambda found: [""] * len(found))
    assert after.program.state is State.RUNNING
    assert any("stored program not understood: it is detached" in line for line in logged())
    for managed in (one, other, after):
        managed.detach()
