"""One check after another, each in a process of its own, and what it found as a line of JSON for the host."""

from __future__ import annotations

import json
import os
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Check = Callable[[], Any]


class Steps:
    """Runs checks and writes each result to `results` at once, so that a kernel that dies shows how far it came.

    A line is {"name", "value", "error", "seconds"}; `error` is the traceback of a check that failed, else "".
    """

    def __init__(self, results: Path) -> None:
        self._results = results.open("a", buffering=1)

    def run(self, name: str, check: Check, deadline: float = 120.0) -> Any:
        """`check` in a forked child; its return value, which must be JSON, or None if it failed or took longer than
        `deadline` seconds and was killed."""
        start = time.monotonic()
        value, error = _in_child(check, deadline)
        seconds = round(time.monotonic() - start, 2)
        self._results.write(json.dumps({"name": name, "value": value, "error": error, "seconds": seconds}) + "\n")
        print(f"{name}: {error.strip().splitlines()[-1] if error else 'done'} ({seconds} s)", flush=True)
        return value


def _in_child(check: Check, deadline: float) -> tuple[Any, str]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(check, write)
    os.close(write)
    chunks: list[bytes] = []
    end = time.monotonic() + deadline
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            chunk = pipe.read(65536)
            if not chunk:
                break
            chunks.append(chunk)
        else:
            os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        answer = json.loads(b"".join(chunks))
    except ValueError:
        late = time.monotonic() >= end
        return None, f"not done after {deadline:.0f} s" if late else f"the check's process ended with {status}"
    return answer["value"], answer["error"]


def _answer(check: Check, write: int) -> None:
    value, error = None, ""
    with tempfile.TemporaryFile() as words:
        os.dup2(words.fileno(), 2)  # children of the check say there what went wrong with them
        try:
            value = check()
        except BaseException:  # noqa: BLE001 - whatever went wrong is the answer
            words.seek(0)
            error = words.read().decode(errors="replace") + traceback.format_exc()
    try:
        with os.fdopen(write, "w") as pipe:
            json.dump({"value": value, "error": error}, pipe)
    finally:
        os._exit(0)
