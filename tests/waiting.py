"""What tests wait for: a condition, a child process, a scrape that reads the maps again.

Every deadline is generous: it ends a test that hangs, and says nothing of how fast something is.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

T = TypeVar("T")

COLLECTION_SHARED = 0.5  # seconds; exporter.server.pages.SHARED, where the exporter need not be importable


def until(holds: Callable[[], T], say: str | Callable[[], object] = "", seconds: float = 60, every: float = 0.02) -> T:
    """Call `holds` again and again, and return its first result that is true.

    AssertionError after `seconds`, with `say` or what `say` returns: the log of whatever is waited for.
    """
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"not true after {seconds:.0f} s: {say() if callable(say) else say}")
        time.sleep(every)
    return found


def answers(url: str) -> bool:
    """Return True if a request is answered with success."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:  # urllib's errors of HTTP are among them
        return False
    return True


def let_collection_expire() -> None:
    """Wait until the server reads the maps again: scrapes within half a second of one another share a collection."""
    time.sleep(COLLECTION_SHARED + 0.1)


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; its process id. The exit code is 0, or 1 after an exception, which it prints."""
    pid = os.fork()
    if pid == 0:
        _work_and_exit(work)
    return pid


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """Run `work` in a forked child, which is killed and reaped at the end of the block."""
    pid = fork(work)
    try:
        yield pid
    finally:
        kill(pid)


def kill(pid: int) -> int:
    """Kill a child, and reap it; its exit code, negative for a signal (os.waitstatus_to_exitcode)."""
    os.kill(pid, signal.SIGKILL)
    return reap(pid)


def reap(pid: int) -> int:
    """Wait for the end of a child; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(work: Callable[[], T]) -> T:
    """Return what `work` returns in a forked child, or raise what it raises there."""
    return start_child(work)()


def start_child(work: Callable[[], T]) -> Callable[[], T]:
    """Run `work` in a forked child. What this returns waits for the result, or raises what `work` raised, and reaps."""
    reading, writing = os.pipe()

    def answer() -> None:
        os.close(reading)
        found: tuple[bool, object]
        try:
            found = True, work()
        except BaseException as error:  # noqa: BLE001 (the parent raises it)
            traceback.print_exc()
            found = False, error
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(found))

    pid = fork(answer)
    os.close(writing)

    def result() -> T:
        with os.fdopen(reading, "rb") as pipe:
            raw = pipe.read()
        code = reap(pid)
        assert raw, f"the child ended with {code}"
        good, found = pickle.loads(raw)
        if not good:
            raise found
        returned: T = found
        return returned

    return result


def _work_and_exit(work: Callable[[], object]) -> NoReturn:
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 (the child must never return into pytest)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
