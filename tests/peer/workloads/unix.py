"""Unix sockets at given paths below /run, which is a file system of the calling process's own."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from pathlib import Path

CLONE_NEWNS = 0x00020000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def connect_and_wait(path: str, count: int, seconds: float) -> int:
    """`count` connections to a listener at `path` that accepts them after so many seconds, in a /run of its own."""
    if _libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4096)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(count)]
        for client in clients:
            client.connect(path)
        time.sleep(seconds)
        served = [listener.accept()[0] for _ in range(count)]
        for one in (*clients, *served):
            one.close()
    return count
