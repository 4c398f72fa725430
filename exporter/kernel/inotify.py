"""inotify(7) by ctypes. Names as in include/uapi/linux/inotify.h."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

IN_OPEN = 0x00000020
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_ONLYDIR = 0x01000000
IN_ISDIR = 0x40000000

_EVENT = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, length of the name with its zeros
_BUFFER = 1 << 16  # bytes; many events, and one of the longest name

_libc = ctypes.CDLL(None, use_errno=True)


def init() -> int:
    """Return the fd of an instance. OSError EMFILE: this user has fs.inotify.max_user_instances already."""
    fd: int = _libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        raise _error("inotify_init1")
    return fd


def add_watch(fd: int, path: str, mask: int) -> int:
    """Return the number of a watch. OSError ENOSPC: this user has fs.inotify.max_user_watches already; ENOENT and
    EACCES of the path."""
    number: int = _libc.inotify_add_watch(fd, os.fsencode(path), mask)
    if number < 0:
        raise _error(f"inotify_add_watch {path}")
    return number


def remove_watch(fd: int, watch: int) -> None:
    """Remove a watch. OSError EINVAL: it is removed already."""
    if _libc.inotify_rm_watch(fd, watch) < 0:
        raise _error(f"inotify_rm_watch {watch}")


def read(fd: int) -> Iterator[tuple[int, int, str]]:
    """Wait for events and yield (watch, mask, name) of each. OSError EBADF if the fd is closed."""
    data = os.read(fd, _BUFFER)
    offset = 0
    while offset < len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        yield watch, mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
        offset += length


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
