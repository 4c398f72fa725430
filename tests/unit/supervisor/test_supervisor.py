"""The supervisor with children of the test's own: what it does when one is slow, hangs, dies or speaks nonsense."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.ipc import messages, protocol
from exporter.ipc.protocol import Loaded
from exporter.kernel import memory
from exporter.program import Descriptors, Program, State
from exporter.spec import Limits, ProgramSpec
from exporter.supervisor import loaders, managed_program, server_forked
from tests.unit.supervisor.supervised import Run, loads, spec
from tests.waiting import until

Start = Callable[..., Run]
Load = Callable[[ProgramSpec, Limits], tuple[Program, Descriptors]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def started(
        load: Load, names: list[str] | list[ProgramSpec], serve: Callable[[socket.socket], None] | None = None
    ) -> Run:
        specs = [spec(name) if isinstance(name, str) else name for name in names]
        runs.append(Run(tmp_path, load, specs, serve))
        return runs[-1]

    yield started
    for run in runs:
        run.kill()


def hangs(program: ProgramSpec, _: Limits) -> tuple[Program, Descriptors]:
    if program.name == "slow":
        time.sleep(600)
    return loads(program)


def test_the_server_is_given_read_only_maps_and_the_memory_of_totals(start: Start) -> None:
    run = start(loads, ["a", "b"])
    run.wait(lambda: all(p["state"] == "running" for p in run.states().values()) and len(run.states()) == 2)
    assert {name: p["fds"] for name, p in run.states().items()} == {
        name: ["/memfd:readonly (deleted)", "/memfd:totals (deleted)"] for name in "ab"
    }
    assert run.end() == 0


def test_a_program_whose_lifetime_is_over_is_detached_and_the_others_go_on(start: Start) -> None:
    run = start(loads, [spec("short", lifetime=1), spec("long", lifetime=3600), spec("for_ever")])
    run.wait(lambda: run.states().get("short", {}).get("state") == "ended")
    short = run.states()["short"]
    assert (short["text"], short["reason"], short["fds"]) == (
        "short: its lifetime of 1 s is over (change its entry and reload)",
        "",
        [],
    )
    held = [os.readlink(fd) for fd in Path(f"/proc/{run.pid}/fd").iterdir()]
    assert sorted(fd for fd in held if "link" in fd) == [
        "/memfd:link of for_ever (deleted)",
        "/memfd:link of long (deleted)",
    ]
    assert [run.states()[name]["state"] for name in ("long", "for_ever")] == ["running", "running"]
    assert run.end() == 0


def test_a_loader_that_hangs_is_killed_at_its_deadline_and_harms_nothing_else(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "LOADER_DEADLINE", 1.0)
    run = start(hangs, ["slow", "quick"])
    run.wait(lambda: "program failed" in run.log)
    run.wait(lambda: run.states()["slow"]["state"] == "failed")
    slow = run.states()["slow"]
    assert (slow["reason"], slow["text"]) == ("timeout", "slow: load: no answer within 1 s (host overloaded?)")
    assert run.states()["quick"]["state"] == "running"
    assert run.end() == 0


def test_a_loader_that_raises_or_exits_or_speaks_nonsense_is_a_state_with_a_text(start: Start) -> None:
    def broken(program: ProgramSpec, _: Limits) -> tuple[Program, Descriptors]:
        if program.name == "raises":
            raise RuntimeError("a bug")
        if program.name == "exits":
            os._exit(7)
        for fd in map(int, os.listdir("/proc/self/fd")):  # whichever it is: the socket to the supervisor
            try:
                sock = socket.socket(fileno=os.dup(fd))
                if program.name == "foreign":
                    content = protocol.encode(Loaded(Program("foreign", State.RUNNING)))
                    messages.send(sock, content.replace(b'"version":2', b'"version":99'), [0])
                sock.send(b"nonsense")
            except OSError:
                continue
        time.sleep(600)
        raise AssertionError

    run = start(broken, ["raises", "exits", "babbles", "foreign"])
    run.wait(lambda: len(run.states()) == 4 and all(p["state"] == "failed" for p in run.states().values()))
    texts = {name: (p["reason"], p["text"]) for name, p in run.states().items()}
    assert texts["raises"] == (
        "internal",
        "raises: load: internal error: RuntimeError: a bug (please report it)",
    )
    assert texts["exits"] == (
        "internal",
        "exits: load: the loader ended with exit code 7 and no word (please report it)",
    )
    reason, text = texts["babbles"]
    assert reason == "internal"
    assert text.startswith("babbles: load: the loader's message was not understood: a header of 8 bytes and 0 ")
    assert texts["foreign"] == (
        "internal",
        "foreign: load: the loader's message was not understood: protocol version 99, expected 2 (please report it)",
    )
    assert run.end() == 0


def test_no_more_than_four_loaders_run_at_once(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(program: ProgramSpec, _: Limits) -> tuple[Program, Descriptors]:
        mark = tmp_path / f"loading-{program.name}"
        mark.touch()
        time.sleep(0.3)
        (tmp_path / f"seen-{program.name}").write_text(str(len(list(tmp_path.glob("loading-*")))))
        mark.unlink()
        return loads(program)

    monkeypatch.setattr(memory, "available", lambda: 1 << 40)  # where it is short there are fewer
    names = [f"p{i}" for i in range(10)]
    run = start(counted, names)
    run.wait(lambda: sum(bool(path.read_text()) for path in tmp_path.glob("seen-*")) == 10, 60)
    seen = [int((tmp_path / f"seen-{name}").read_text()) for name in names]
    assert 1 < max(seen) <= 4
    assert run.end() == 0


def test_a_server_that_always_dies_is_started_again_with_growing_pauses(start: Start) -> None:
    def dies(sock: socket.socket) -> None:
        os._exit(3)

    began = time.monotonic()
    run = start(loads, ["a"], dies)
    run.wait(lambda: len(re.findall("server ended with exit code 3", run.log)) >= 5, 60)  # more are left out
    assert time.monotonic() - began > 0.6  # at once, then after 0.1, 0.2 and 0.4 s
    assert run.end() == 0


def test_a_host_without_descriptors_delays_a_server_and_fails_a_loader(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_forked, "RETRY", 0.1)
    pair, failures = messages.pair, [OSError(24, "Too many open files")] * 2

    def scarce() -> tuple[socket.socket, socket.socket]:
        if failures:
            raise failures.pop()
        return pair()

    monkeypatch.setattr(messages, "pair", scarce)
    run = start(loads, ["first", "second"])  # the server is asked for before the loaders
    run.wait(lambda: run.states().get("second", {}).get("state") == "running", 30)
    run.wait(lambda: run.states()["first"]["state"] == "failed")
    assert run.states()["first"]["text"] == "first: load: the loader cannot be started: Too many open files"
    assert "server cannot be started: trying again" in run.log
    assert run.end() == 0


def test_a_server_that_does_not_read_is_replaced(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_forked, "SEND_TIMEOUT", 0.5)

    def deaf(sock: socket.socket) -> None:
        protocol.send_ready(sock)
        time.sleep(600)

    run = start(loads, [f"p{i}" for i in range(300)], deaf)  # more than the socket's buffer holds
    run.wait(lambda: "the server does not receive messages: starting another one" in run.log, 30)
    assert run.end() == 0


def test_nothing_stays_open_when_it_ends() -> None:
    fds = loads(spec("a"))[1]
    numbers = [*fds.maps.values(), *fds.readonly.values(), *fds.programs.values(), *fds.links]
    fds.close()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    assert fds == Descriptors()


@pytest.mark.parametrize(("limit", "told"), [(0.0, True), (1000.0, False)])
def test_a_program_that_takes_long_to_detach_is_logged(
    start: Start, monkeypatch: pytest.MonkeyPatch, limit: float, told: bool
) -> None:
    monkeypatch.setattr(managed_program, "SLOW_CLOSE", limit)
    run = start(loads, ["a"])
    run.wait(lambda: run.states().get("a", {}).get("state") == "running")
    assert run.end() == 0
    found = re.search(
        r'event="detaching took long" program=a links=1 seconds=[\d.]+ error=".* see docs/attach.md"', run.log
    )
    assert bool(found) is told, run.log
    assert "stopped: everything is detached" in run.log


def test_the_children_do_not_outlive_a_killed_supervisor(start: Start, tmp_path: Path) -> None:
    from exporter.kernel import credentials

    def serve(sock: socket.socket) -> None:
        credentials.die_with_parent(signal.SIGKILL, os.getppid())
        (tmp_path / "server").write_text(str(os.getpid()))
        threading.Event().wait(600)

    run = start(loads, ["a"], serve)
    run.wait((tmp_path / "server").exists)
    run.wait(lambda: bool((tmp_path / "server").read_text()))
    server = int((tmp_path / "server").read_text())
    run.kill()

    def is_gone() -> bool:
        status = Path(f"/proc/{server}/status")
        return not status.exists() or "Z" in status.read_text().split("State:")[1][:4]

    until(is_gone)
