"""The supervisor's part that looks at the web configuration: what it reads, when, and what the server is told."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.supervisor import read_web_config, web_config

Logged = Callable[[], list[str]]

ENOUGH = 60.0  # seconds; for what takes half a second on an idle machine
LOOKS = 0.05


class Looking:
    """The part in a loop of its own, as the supervisor has it."""

    def __init__(self, path: Path, answer: Callable[[], dict[str, Any]] | None = None) -> None:
        owners = [os.geteuid()]
        first = read_web_config.read(path, owners)
        assert first.settings is not None, first.mistakes
        self.told: list[dict[str, Any]] = []
        self._selector = selectors.DefaultSelector()
        source = web_config.WebConfigSource(answer or (lambda: read_web_config.answer(path, owners)), first)
        self.part = web_config.WebConfigWatch(
            source, self._selector, lambda document: self.told.append(document["web"])
        )

    def go_on(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + ENOUGH
        while not until():
            assert time.monotonic() < end
            self.part.work()
            for key, _ in self._selector.select(max(0.0, min(self.part.due()) - time.monotonic())):
                key.data()

    def look(self, times: int) -> None:
        """So many looks at the files, and whatever follows from them."""
        end = time.monotonic() + times * LOOKS
        self.go_on(lambda: time.monotonic() >= end)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(web_config, "LOOKS", LOOKS)
    path = tmp_path / "web.yaml"
    write(path, "rate_limit: {interval: 1s, burst: 1}\n")
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def burst(news: dict[str, Any]) -> int:
    found: int = news["settings"]["burst"]
    return found


def test_a_file_that_stays_as_it_is_is_not_read_again(path: Path) -> None:
    looking = Looking(path)
    path.touch()
    looking.look(5)
    assert looking.told == []
    assert burst(looking.part.news()) == 1


def test_a_changed_file_is_told(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    before = looking.part.news()["timestamp"]
    write(path, "rate_limit: {interval: 1s, burst: 2}\n")
    looking.go_on(lambda: len(looking.told) > 0)
    (news,) = looking.told
    assert (burst(news), news["successful"]) == (2, True)
    assert news["timestamp"] > before
    assert looking.part.news() == news


def test_a_wrong_file_keeps_the_last_one_and_is_told_once(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    write(path, "rate_limt: {}\n")
    looking.go_on(lambda: len(looking.told) > 0)
    looking.look(10)
    (news,) = looking.told
    assert (burst(news), news["successful"]) == (1, False)
    (line,) = [line for line in logged() if "web configuration is wrong" in line]
    assert f"place={path}:1:1" in line
    assert 'unknown key \\"rate_limt\\"; did you mean \\"rate_limit\\"?' in line
    path.unlink()
    looking.go_on(lambda: len(looking.told) > 1)
    assert "no such file or directory" in logged()[-1]
    write(path, "rate_limit: {interval: 1s, burst: 3}\n")
    looking.go_on(lambda: len(looking.told) > 2)
    assert (burst(looking.told[-1]), looking.told[-1]["successful"]) == (3, True)


def test_a_file_that_is_being_written_is_waited_for(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    looking.look(2)
    for number in range(10):  # each look finds another file
        write(path, f"# part {number}\n")
        looking.part.work()
        time.sleep(LOOKS)
    assert looking.told == []
    write(path, "rate_limit: {interval: 1s, burst: 4}\n")
    looking.go_on(lambda: len(looking.told) > 0)
    assert [burst(news) for news in looking.told] == [4]


@pytest.mark.parametrize("mended_by", ["another file", "time"])
def test_a_reader_without_a_word_is_told_and_not_asked_at_once_again(
    path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch, mended_by: str
) -> None:
    monkeypatch.setattr(web_config, "TRIES_AGAIN", 1.0 if mended_by == "time" else 600.0)
    broken = path.with_name("broken")
    broken.touch()

    def answer() -> dict[str, Any]:
        if broken.exists():
            os._exit(7)
        return read_web_config.answer(path, [os.geteuid()])

    looking = Looking(path, answer)
    write(path, "rate_limit: {interval: 1s, burst: 2}\n")
    looking.go_on(lambda: len(looking.told) > 0)
    assert (burst(looking.told[-1]), looking.told[-1]["successful"]) == (1, False)
    assert any("ended with exit code 7 and no word" in line for line in logged())
    looking.look(5)
    assert len(looking.told) == 1
    broken.unlink()
    if mended_by == "another file":
        write(path, "rate_limit: {interval: 1s, burst: 22}\n")
    looking.go_on(lambda: len(looking.told) > 1)
    assert (burst(looking.told[-1]), looking.told[-1]["successful"]) == (2 if mended_by == "time" else 22, True)


def test_its_end_leaves_no_process_behind(path: Path, logged: Logged) -> None:
    looking = Looking(path)
    write(path, "rate_limit: {interval: 1s, burst: 5}\n")
    end = time.monotonic() + ENOUGH
    while not (children := _children()):
        assert time.monotonic() < end
        looking.part.work()
        time.sleep(LOOKS / 5)
    looking.part.end()
    assert not set(children) & set(_children())


def _children() -> list[int]:
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in task.read_text().split()]
