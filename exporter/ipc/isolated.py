"""Forked children: for code that may crash or leave much memory behind, and for the supervisor (children.py there)."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from exporter import log
from exporter.kernel.credentials import die_with_parent


@dataclass(frozen=True, slots=True)
class Outcome:
    """answer   what the function returned; "" if it did not come to that
    output   what went to standard output and standard error, also from C
    status   exit code; -N where signal N ended it
    """

    answer: str
    output: str
    status: int

    @property
    def last_words(self) -> str:
        """Return how it ended, and the last line that it printed."""
        return f"{ending(self.status)}: {self.output.strip().rpartition(chr(10))[2] or 'no word'}"


def ending(status: int) -> str:
    """Return what an exit code, or -N for signal N, is called."""
    return f"signal {-status}" if status < 0 else f"exit code {status}"


def run_isolated(work: Callable[[IO[bytes]], str]) -> Outcome:
    """Call `work` in a child and wait for it. OSError where no process can be had.

    `work` is given the file that its standard output and error go to.
    """
    # Files in memory: there may be no directory to write to.
    with open(os.memfd_create("output"), "w+b") as output, open(os.memfd_create("answer"), "w+b") as answer:
        child = fork(lambda: _write(work, output, answer))
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        for file in (output, answer):
            file.seek(0)
        text, printed = answer.read().decode(), output.read().decode(errors="replace")
        return Outcome(text, printed, os.waitstatus_to_exitcode(status))


def fork(work: Callable[[], object], keep: Sequence[int] | None = None) -> int:
    """Fork a child that calls `work` and ends. Return its pid. OSError where no process can be had.

    The child ends with the thread that called, has default signal handlers, and inherits the standard streams and the
    descriptors `keep`; all of them where that is None.
    """
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        die_with_parent(signal.SIGKILL, parent)
        _reset_signals()
        if keep is not None:
            _close_all_but(keep)
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 (a child has no other way to report it)
        log.get().error("child process failed", error=_first_line(error))
    finally:
        os._exit(status)  # no atexit: bcc's would detach, and Python's belongs to the parent


def _write(work: Callable[[IO[bytes]], str], output: IO[bytes], answer: IO[bytes]) -> None:
    faulthandler.disable()  # the parent reports a crash in one sentence
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    try:
        answer.write(work(output).encode())
        answer.flush()
    except BaseException as error:  # noqa: BLE001 (Outcome.last_words shows the last line of the output)
        os.write(2, f"{_first_line(error)}\n".encode())
        os._exit(1)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    # A terminal sends these to the whole group: they are the parent's matter.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _close_all_but(keep: Sequence[int]) -> None:
    """Close-on-exec does not help, there is no exec; a server with a program descriptor could read kernel memory."""
    last = 2
    for fd in sorted(keep):
        os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
