"""Children of the supervisor: forked, without its descriptors, watched by a pidfd."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from exporter.ipc import messages
from exporter.kernel import credentials


@dataclass(slots=True, eq=False)
class Child:
    """A process forked from this one, and our end of the socket to it."""

    pid: int
    pidfd: int
    sock: socket.socket

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def reap(self) -> int:
        """Wait for its end and forget it: its exit code, or -N where signal N ended it."""
        self.sock.close()
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def fork(run: Callable[[socket.socket], NoReturn], keep: Sequence[int] = ()) -> Child:
    """A child that runs this with its end of a socket and inherits the descriptors named. OSError if there is none."""
    ours, theirs = messages.pair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        try:
            _become_child(theirs.fileno(), *keep)
            run(theirs)
        finally:
            os._exit(1)
    theirs.close()
    try:
        return Child(pid, os.pidfd_open(pid), ours)
    except OSError:  # no descriptor left
        ours.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def ask(answer: Callable[[], dict[str, Any]]) -> Child:
    """A child that sends one document and ends, or dies with this process. OSError if there is none."""
    parent = os.getpid()

    def run(sock: socket.socket) -> NoReturn:
        credentials.die_with_parent(signal.SIGKILL, parent)
        messages.send(sock, answer())
        os._exit(0)

    return fork(run)


def _become_child(*keep: int) -> None:
    """In a forked child: default signals, and no descriptor of the supervisor's but the ones named.

    Close-on-exec does not help, there is no exec; a server with a program descriptor could read kernel memory.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    # A terminal sends these to the whole group: they are the supervisor's matter.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    last = 2
    for fd in sorted(keep):
        os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
