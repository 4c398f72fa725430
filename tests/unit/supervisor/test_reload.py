"""A reload whose reader hangs, dies or answers nonsense: what runs goes on, and the next one works."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.ipc.protocol import ConfigRead, Message, WebConfigRead
from exporter.program import Descriptors, Program
from exporter.spec import Config, Limits, ProgramSpec
from exporter.supervisor import config_reader
from exporter.supervisor.reload import ConfigSource
from tests.unit.supervisor.supervised import Run, loads, spec

Read = Callable[[], ConfigRead]
Reloading = Callable[[Read], Run]


def answer(*specs: ProgramSpec) -> ConfigRead:
    return ConfigRead(config=Config(programs=list(specs)))


@pytest.fixture
def reloading(tmp_path: Path) -> Iterator[Reloading]:
    """A supervisor of program a, whose reader answers this where there is a file `ready`, and else misbehaves."""
    runs: list[Run] = []

    def start(misbehave: Read) -> Run:
        def read() -> ConfigRead:
            return answer(spec("a"), spec("b")) if (tmp_path / "ready").exists() else misbehave()

        source = ConfigSource(read, ConfigRead(config=Config(programs=[spec("a")])), tmp_path / "disable")
        runs.append(run := Run(tmp_path, loads, [spec("a")], source=source))
        run.wait(lambda: run.states().get("a", {}).get("state") == "running")
        return run

    yield start
    for run in runs:
        run.kill()


def hangs() -> ConfigRead:
    time.sleep(600)
    raise AssertionError


def is_killed() -> ConfigRead:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Nonsense(Message):
    kind = "nonsense"

    def model_dump(self, mode: str = "json") -> dict[str, object]:  # noqa: ARG002
        return {}


def raises() -> ConfigRead:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("misbehave", "told"),
    [
        (hangs, "no answer within 3 s (host overloaded?)"),
        (is_killed, "the process that reads it ended with signal 9 and no word (out of memory?)"),
        (raises, "the process that reads it ended with exit code 1 and no word"),
        (
            lambda: WebConfigRead(),
            "was not understood: message kind web_config_read is not for this process (please report it)",
        ),
        (lambda: Nonsense(), "was not understood: unknown message kind 'nonsense' (please report it)"),
    ],
    ids=["hangs", "killed", "raises", "another_kind", "unknown_kind"],
)
def test_a_reader_that_fails_changes_nothing(
    reloading: Reloading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misbehave: Read, told: str
) -> None:
    if misbehave is hangs:
        monkeypatch.setattr(config_reader, "DEADLINE", 3.0)
    run = reloading(misbehave)
    os.kill(run.pid, signal.SIGHUP)
    run.wait(lambda: "configuration not reloaded: all programs go on as they are" in run.log)
    assert told in run.log
    assert set(run.states()) == {"a"}
    (tmp_path / "ready").touch()
    os.kill(run.pid, signal.SIGHUP)
    run.wait(lambda: run.states().get("b", {}).get("state") == "running")
    assert run.end() == 0


def test_no_child_and_no_descriptor_is_left_of_many_reloads(reloading: Reloading, tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    run = reloading(hangs)
    os.kill(run.pid, signal.SIGHUP)
    run.wait(lambda: run.states().get("b", {}).get("state") == "running")
    held = len(os.listdir(f"/proc/{run.pid}/fd"))
    for _ in range(20):
        os.kill(run.pid, signal.SIGHUP)
        time.sleep(0.01)  # some come while one is under way
    run.wait(lambda: len(os.listdir(f"/proc/{run.pid}/fd")) == held)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    run.wait(lambda: len(children.read_text().split()) == 1)  # the server
    assert run.end() == 0


def test_a_reload_that_is_under_way_at_the_end_is_ended(reloading: Reloading) -> None:
    run = reloading(hangs)
    os.kill(run.pid, signal.SIGHUP)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    run.wait(lambda: len(children.read_text().split()) == 2)
    assert run.end() == 0


def test_a_program_that_hangs_in_loading_is_given_up_when_the_files_want_another(tmp_path: Path) -> None:
    def load(program: ProgramSpec, _: Limits) -> tuple[Program, Descriptors]:
        if program.text == "slow":
            time.sleep(600)
        return loads(program)

    slow = spec("b").model_copy(update={"text": "slow"})

    def read() -> ConfigRead:
        return answer(spec("a"), spec("b")) if (tmp_path / "ready").exists() else answer(spec("a"), slow)

    run = Run(tmp_path, load, [spec("a")], source=ConfigSource(read, ConfigRead(config=Config()), tmp_path / "disable"))
    try:
        run.wait(lambda: run.states().get("a", {}).get("state") == "running")
        os.kill(run.pid, signal.SIGHUP)
        run.wait(lambda: "event=loading program=b" in run.log)
        (tmp_path / "ready").touch()
        os.kill(run.pid, signal.SIGHUP)
        run.wait(lambda: run.states().get("b", {}).get("state") == "running")
        assert run.end() == 0
    finally:
        run.kill()


def test_a_program_that_ends_while_others_are_loaded_is_loaded_as_its_new_entry_says(tmp_path: Path) -> None:
    def load(program: ProgramSpec, _: Limits) -> tuple[Program, Descriptors]:
        while program.name == "slow" and not (tmp_path / "ready").exists():
            time.sleep(0.01)
        return loads(program)

    def read() -> ConfigRead:
        return answer(spec("a", lifetime=3600), spec("slow"))

    first = ConfigRead(config=Config(programs=[spec("a")]))
    run = Run(tmp_path, load, [spec("a", lifetime=3)], source=ConfigSource(read, first, tmp_path / "disable"))
    try:
        run.wait(lambda: run.states().get("a", {}).get("state") == "running")
        os.kill(run.pid, signal.SIGHUP)
        run.wait(lambda: run.states()["a"]["state"] == "ended")
        (tmp_path / "ready").touch()
        run.wait(lambda: run.states().get("slow", {}).get("state") == "running")
        run.wait(lambda: 'event="configuration reloaded" ' in run.log)
        assert run.states()["a"]["state"] == "running"
        assert run.log.count("event=loading program=slow") == 1
        assert run.end() == 0
    finally:
        run.kill()
