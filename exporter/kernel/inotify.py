"""inotify(7) by ctypes: what is made in a directory, told as it is made. Names as in include/uapi/linux/inotify.h."""

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
    """The fd of an instance. OSError EMFILE: more than fs.inotify.max_user_instances of this user."""
    fd: int = _libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        raise _error("inotify_init1")
    return fd


def add_watch(fd: int, path: str, mask: int) -> int:
    """The number of a watch. OSError ENOSPC: more than fs.inotify.max_user_watches of this user; ENOENT, EACCES of the
    path."""
    number: int = _libc.inotify_add_watch(fd, os.fsencode(path), mask)
    if number < 0:
        raise _error(f"inotify_add_watch {path}")
    return number


def remove_watch(fd: int, watch: int) -> None:
    """End a watch. OSError EINVAL: it has ended."""
    if _libc.inotify_rm_watch(fd, watch) < 0:
        raise _error(f"inotify_rm_watch {watch}")


def read(fd: int) -> Iterator[tuple[int, int, str]]:
    """(watch, mask, name) of each event that has come; waits for one. OSError EBADF where the fd was closed."""
    data = os.read(fd, _BUFFER)
    place = 0
    while place < len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, place)
        place += _EVENT.size
        yield watch, mask, os.fsdecode(data[place : place + length].rstrip(b"\0"))
        place += length


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
