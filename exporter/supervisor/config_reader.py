"""Configuration files, read in a child that ends.

pydantic, PyYAML and OpenSSL (16 MB) go with the child, and a file that hangs or breaks it harms no other process.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

from exporter import config
from exporter.config.findings import ConfigErrors, lines
from exporter.ipc import isolated, protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import ConfigRead, FilesRead, WebConfigRead
from exporter.supervisor import children
from exporter.supervisor.children import Child

DEADLINE = 60.0  # seconds; 0.4 s of CPU are usual
ANSWER_TIMEOUT = 10.0  # seconds for receiving a message that has begun

Result = TypeVar("Result", bound=FilesRead)


def read_config(path: Path, trust_owner: Collection[int]) -> ConfigRead:
    """Return the configuration of a daemon, whose files must belong to root or to `trust_owner`. For a child."""
    try:
        loaded = config.load(path, trust_owner=trust_owner, enforce_owner=True)
    except ConfigErrors as errors:
        return ConfigRead(mistakes=lines(errors.findings), sources=errors.sources)
    return ConfigRead(config=loaded.config, warnings=lines(loaded.warnings), sources=loaded.sources)


def read_web_config(path: Path, trust_owner: Collection[int]) -> WebConfigRead:
    """Return the web configuration and the certificates that it names. For a child."""
    from exporter.web.config import web_file

    try:
        loaded = web_file.load(path, {0, os.geteuid(), *trust_owner})
    except ConfigErrors as errors:
        return WebConfigRead(mistakes=lines(errors.findings), sources=errors.sources)
    return WebConfigRead(settings=loaded.settings, warnings=lines(loaded.warnings), sources=loaded.sources)


def read_in_child(
    read: Callable[[Path, Collection[int]], Result], wanted: type[Result], path: Path, trust_owner: Collection[int]
) -> Result:
    """Return what `read` finds. OSError where no process can be had."""
    outcome = isolated.run_isolated(lambda _: protocol.encode(read(path, trust_owner)).decode())
    if outcome.answer:
        return protocol.decode(outcome.answer.encode(), wanted)
    return wanted(mistakes=((str(path), f"read: the process that reads it ended with {outcome.last_words}"),))


class ConfigReader(Generic[Result]):
    """One reading child at a time, as a part of the supervisor's loop.

    read    runs in the child
    wanted  the message that it answers with
    done    is given what was read, or None and the error
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        read: Callable[[], Result],
        wanted: type[Result],
        done: Callable[[Result | None, str], None],
    ) -> None:
        self._selector = selector
        self._read = read
        self._wanted = wanted
        self._done = done
        self._child: Child | None = None
        self._deadline = 0.0

    @property
    def is_reading(self) -> bool:
        return self._child is not None

    def begin(self) -> None:
        """Start a child, when none reads. OSError where no process can be had."""
        self._child = child = children.fork(lambda sock: protocol.send(sock, self._read()))
        self._deadline = time.monotonic() + DEADLINE
        self._selector.register(child.sock, selectors.EVENT_READ, lambda: self._on_answer(child))

    def due(self) -> list[float]:
        """Return when `work` has to be called at the latest, by the monotonic clock."""
        return [] if self._child is None else [self._deadline]

    def work(self) -> None:
        if self._child is not None and time.monotonic() >= self._deadline:
            self.end()
            self._done(None, f"no answer within {DEADLINE:.0f} s (host overloaded?)")

    def end(self) -> None:
        """Kill the child; `done` is not called."""
        if self._child is not None:
            self._child.kill()
            self._reap(self._child)

    def _on_answer(self, child: Child) -> bool:
        """Its message came, or its end of the socket closed."""
        if child is not self._child:
            return False  # it was killed in this round of the loop
        child.sock.settimeout(ANSWER_TIMEOUT)
        result, error = None, ""
        try:
            received = protocol.receive(child.sock, self._wanted)
            result = received[0] if received else None
        except (ProtocolError, OSError) as reason:
            error = f"its message was not understood: {reason} (please report it)"
            child.kill()
        status = self._reap(child)
        if result is None and not error:
            error = f"the process that reads it ended with {isolated.ending(status)} and no word (out of memory?)"
        self._done(result, error)
        return False

    def _reap(self, child: Child) -> int:
        self._selector.unregister(child.sock)
        self._child = None
        return child.reap()
