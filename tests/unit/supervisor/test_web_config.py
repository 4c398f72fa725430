"""The supervisor's part that looks at the web configuration: what it reads, when, and what the server is told."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.ipc.protocol import WebConfigRead, WebState
from exporter.supervisor import web_config
from exporter.supervisor.config_reader import read_in_child, read_web_config
from tests.waiting import until

Logged = Callable[[], list[str]]

ENOUGH = 60.0  # seconds; for what takes half a second on an idle machine
INTERVAL = 0.05


class Looking:
    """The part in a loop of its own, as the supervisor has it."""

    def __init__(self, path: Path, read: Callable[[], WebConfigRead] | None = None) -> None:
        owners = [os.geteuid()]
        first = read_in_child(read_web_config, WebConfigRead, path, owners)
        assert first.settings is not None, first.mistakes
        self.sent: list[WebState] = []
        self._selector = selectors.DefaultSelector()
        source = web_config.WebConfigSource(read or (lambda: read_web_config(path, owners)), first)
        self.part = web_config.WebConfigWatch(source, self._selector, self.sent.append)

    def go_on(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + ENOUGH
        while not until():
            assert time.monotonic() < end
            self.part.work()
            for key, _ in self._selector.select(max(0.0, min(self.part.due()) - time.monotonic())):
                key.data()

    def look(self, times: int) -> None:
        """So many looks at the files, and whatever follows from them."""
        end = time.monotonic() + times * INTERVAL
        self.go_on(lambda: time.monotonic() >= end)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(web_config, "CHECK_INTERVAL", INTERVAL)
    path = tmp_path / "web.yaml"
    write(path, "rate_limit: {interval: 1s, burst: 1}\n")
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def burst(state: WebState) -> int:
    assert state.settings is not None
    return state.settings.burst


def test_a_file_that_stays_as_it_is_is_not_read_again(path: Path) -> None:
    looking = Looking(path)
    path.touch()
    looking.look(5)
    assert looking.sent == []
    assert burst(looking.part.state()) == 1


def test_a_changed_file_is_told(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    before = looking.part.state().timestamp
    write(path, "rate_limit: {interval: 1s, burst: 2}\n")
    looking.go_on(lambda: len(looking.sent) > 0)
    (state,) = looking.sent
    assert (burst(state), state.successful) == (2, True)
    assert state.timestamp > before
    assert looking.part.state() == state


def test_a_wrong_file_keeps_the_last_one_and_is_told_once(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    write(path, "rate_limt: {}\n")
    looking.go_on(lambda: len(looking.sent) > 0)
    looking.look(10)
    (state,) = looking.sent
    assert (burst(state), state.successful) == (1, False)
    (line,) = [line for line in logged() if "web configuration is wrong" in line]
    assert f"place={path}:1:1" in line
    assert 'unknown key \\"rate_limt\\"; did you mean \\"rate_limit\\"?' in line
    path.unlink()
    looking.go_on(lambda: len(looking.sent) > 1)
    assert "no such file or directory" in logged()[-1]
    write(path, "rate_limit: {interval: 1s, burst: 3}\n")
    looking.go_on(lambda: len(looking.sent) > 2)
    assert (burst(looking.sent[-1]), looking.sent[-1].successful) == (3, True)


def test_a_file_that_is_being_written_is_waited_for(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    looking.look(2)
    for number in range(10):  # each look finds another file
        write(path, f"# part {number}\n")
        looking.part.work()
        time.sleep(INTERVAL)
    assert looking.sent == []
    write(path, "rate_limit: {interval: 1s, burst: 4}\n")
    looking.go_on(lambda: len(looking.sent) > 0)
    assert [burst(state) for state in looking.sent] == [4]


@pytest.mark.parametrize("mended_by", ["another file", "time"])
def test_a_reader_without_a_word_is_told_and_not_asked_at_once_again(
    path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch, mended_by: str
) -> None:
    monkeypatch.setattr(web_config, "RETRY", 1.0 if mended_by == "time" else 600.0)
    broken = path.with_name("broken")
    broken.touch()

    def read() -> WebConfigRead:
        if broken.exists():
            os._exit(7)
        return read_web_config(path, [os.geteuid()])

    looking = Looking(path, read)
    write(path, "rate_limit: {interval: 1s, burst: 2}\n")
    looking.go_on(lambda: len(looking.sent) > 0)
    assert (burst(looking.sent[-1]), looking.sent[-1].successful) == (1, False)
    assert any("ended with exit code 7 and no word" in line for line in logged())
    looking.look(5)
    assert len(looking.sent) == 1
    broken.unlink()
    if mended_by == "another file":
        write(path, "rate_limit: {interval: 1s, burst: 22}\n")
    looking.go_on(lambda: len(looking.sent) > 1)
    assert (burst(looking.sent[-1]), looking.sent[-1].successful) == (2 if mended_by == "time" else 22, True)


def test_its_end_leaves_no_process_behind(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    write(path, "rate_limit: {interval: 1s, burst: 5}\n")

    def children() -> list[int]:
        looking.part.work()
        return _children()

    started = until(children, seconds=ENOUGH, every=INTERVAL / 5)
    looking.part.end()
    assert not set(started) & set(_children())


def _children() -> list[int]:
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in task.read_text().split()]
