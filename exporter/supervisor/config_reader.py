"""A child that reads files, says one thing and ends: a part of the supervisor's loop.

What it needs to read them (pydantic, PyYAML) goes with it, and a file that hangs or breaks it harms nobody else.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from exporter.ipc import messages
from exporter.supervisor import children
from exporter.supervisor.children import Child

DEADLINE = 60.0  # seconds; 0.4 s of CPU are usual
ANSWER_TIMEOUT = 10.0  # seconds that it may take over its one message

Read = TypeVar("Read")


class ConfigReader(Generic[Read]):
    """One child at a time.

    answer      runs in it
    understood  what its document says; LookupError, TypeError or ValueError where that is nothing
    done        is given what was read, or None and why
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        answer: Callable[[], dict[str, Any]],
        understood: Callable[[dict[str, Any]], Read],
        done: Callable[[Read | None, str], None],
    ) -> None:
        self._selector = selector
        self._answer = answer
        self._understood = understood
        self._done = done
        self._child: Child | None = None
        self._deadline = 0.0

    @property
    def reads(self) -> bool:
        """Whether there is a child now."""
        return self._child is not None

    def begin(self) -> None:
        """OSError where there is no process to be had. Not while one reads."""
        self._child = child = children.ask(self._answer)
        self._deadline = time.monotonic() + DEADLINE
        self._selector.register(child.sock, selectors.EVENT_READ, lambda: self._on_answer(child))

    def due(self) -> list[float]:
        """When `work` has to be called at the latest, by the monotonic clock."""
        return [] if self._child is None else [self._deadline]

    def work(self) -> None:
        if self._child is not None and time.monotonic() >= self._deadline:
            self.end()
            self._done(None, f"no answer within {DEADLINE:.0f} s (host overloaded?)")

    def end(self) -> None:
        """Nobody waits for it any more; `done` is not told."""
        if self._child is not None:
            self._child.kill()
            self._reap(self._child)

    def _on_answer(self, child: Child) -> bool:
        """Its message came, or its end of the socket closed."""
        if child is not self._child:
            return False  # it was given up in this round of the loop
        child.sock.settimeout(ANSWER_TIMEOUT)
        read, why = None, ""
        try:
            message = messages.receive(child.sock)
            read = self._understood(message[0]) if message else None
        except (messages.ProtocolError, LookupError, OSError, TypeError, ValueError) as error:
            why = f"its message was not understood: {type(error).__name__}: {error} (please report it)"
            child.kill()
        status = self._reap(child)
        if read is None and not why:
            how = f"signal {-status}" if status < 0 else f"exit code {status}"
            why = f"the process that reads it ended with {how} and no word (out of memory?)"
        self._done(read, why)
        return False

    def _reap(self, child: Child) -> int:
        self._selector.unregister(child.sock)
        self._child = None
        return child.reap()
