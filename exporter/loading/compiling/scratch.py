"""A place for what is needed now and not kept, where the cache cannot be written to or its disk is full."""

from __future__ import annotations

import errno
import os
import tempfile

ROOM = 64 << 20  # bytes; the types of a kernel as C text, with their index, are 16 MB
IN_MEMORY = ("/dev/shm", "/run")  # noqa: S108 - a directory of our own is made in it


def place() -> str:
    """The directory to make one in: for temporary files, or in memory where that has no room. OSError without any."""
    try:
        usual = [tempfile.gettempdir()]
    except OSError:  # it cannot write to any
        usual = []
    for directory in (*usual, *IN_MEMORY):
        try:
            status = os.statvfs(directory)
        except OSError:
            continue
        if status.f_bavail * status.f_frsize >= ROOM and os.access(directory, os.W_OK):
            return directory
    raise OSError(errno.ENOSPC, f"no directory with {ROOM >> 20} MB of room for temporary files (TMPDIR can name one)")
