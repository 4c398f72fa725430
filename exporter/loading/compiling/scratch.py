"""A directory for temporary files, where the cache cannot be written to or its disk is full."""

from __future__ import annotations

import errno
import os
import tempfile

ROOM = 64 << 20  # bytes; the types of a kernel as C text, with their index, are 16 MB
IN_MEMORY = ("/dev/shm", "/run")  # noqa: S108 - a directory of our own is made in it


def directory() -> str:
    """Return the usual directory for temporary files, or one in memory where that has no room. OSError without
    either."""
    try:
        usual = [tempfile.gettempdir()]
    except OSError:  # it cannot write to any
        usual = []
    for path in (*usual, *IN_MEMORY):
        try:
            status = os.statvfs(path)
        except OSError:
            continue
        if status.f_bavail * status.f_frsize >= ROOM and os.access(path, os.W_OK):
            return path
    raise OSError(errno.ENOSPC, f"no directory with {ROOM >> 20} MB of room for temporary files (TMPDIR can name one)")
