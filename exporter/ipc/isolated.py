"""A function in a child process of its own -> the text it answered, all that it printed, and how it ended.

For code that may end the process, crash, or leave much memory behind. The child dies with the thread that called.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

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
        """How it ended, and the last line that it printed."""
        how = f"signal {-self.status}" if self.status < 0 else f"exit code {self.status}"
        last = self.output.strip().rpartition("\n")[2]
        return f"{how}: {last or 'no word'}"


def run_isolated(work: Callable[[IO[bytes]], str]) -> Outcome:
    """Forks and calls `work` with the file that its standard output and error go to. OSError where it cannot fork."""
    parent = os.getpid()
    with open(os.memfd_create("output"), "w+b") as output:  # there may be no directory to write to
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            _child(work, parent, writing, output)
        os.close(writing)
        try:
            with open(reading, encoding="utf-8") as pipe:
                answer = pipe.read()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return Outcome(answer, output.read().decode(errors="replace"), os.waitstatus_to_exitcode(status))


def _child(work: Callable[[IO[bytes]], str], parent: int, writing: int, output: IO[bytes]) -> None:
    status = 1
    try:
        die_with_parent(signal.SIGKILL, parent)
        faulthandler.disable()  # a crash here is told in one sentence by the parent
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        with open(writing, "w", encoding="utf-8") as pipe:
            pipe.write(work(output))
        status = 0
    except BaseException as error:  # noqa: BLE001 (this process has no other way to say it)
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)  # no atexit: bcc's would detach, and Python's belongs to the parent
