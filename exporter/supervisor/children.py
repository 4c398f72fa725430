"""Children of the supervisor: forked, without its descriptors, watched by a pidfd, connected by a socket."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter.ipc import isolated, messages


@dataclass(slots=True, eq=False)
class Child:
    """A process forked from this one, and the supervisor's end of the socket to it."""

    pid: int
    pidfd: int
    sock: socket.socket

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def reap(self) -> int:
        """Wait for its end and forget it. Return its exit code, or -N where signal N ended it."""
        self.sock.close()
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def fork(run: Callable[[socket.socket], object], keep: Sequence[int] = ()) -> Child:
    """Return a child that runs this with its end of a socket and inherits the descriptors named. OSError if there is
    none."""
    ours, theirs = messages.pair()
    try:
        with theirs:
            pid = isolated.fork(lambda: run(theirs), [theirs.fileno(), *keep])
    except OSError:
        ours.close()
        raise
    try:
        return Child(pid, os.pidfd_open(pid), ours)
    except OSError:  # no descriptor left
        ours.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
