"""Anonymous files that nobody can change in ways that are sealed (memfd_create(2), fcntl(2))."""

from __future__ import annotations

import fcntl
import os

F_ADD_SEALS = 1033  # include/uapi/linux/fcntl.h; the module fcntl has the names only where libc does
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8


def of_content(name: str, content: bytes) -> int:
    """Return the descriptor of a file with this content, which nobody can change. OSError if there is none."""
    return _sealed(name, len(content), content, F_SEAL_WRITE)


def of_size(name: str, size: int) -> int:
    """Return the descriptor of a file of so many zero bytes, which can be written but not resized. OSError as above."""
    return _sealed(name, size, b"", 0)


def _sealed(name: str, size: int, content: bytes, seals: int) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        with os.fdopen(fd, "wb", closefd=False) as stream:
            stream.write(content)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | seals)
    except BaseException:
        os.close(fd)
        raise
    return fd
