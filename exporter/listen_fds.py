"""Descriptors that the service manager passed at start (sd_listen_fds(3)): listening sockets, and what it stored."""

from __future__ import annotations

import os

FIRST = 3  # SD_LISTEN_FDS_START


def take() -> list[tuple[str, int]]:
    """(name, descriptor) of each, close-on-exec, the caller's from now on. Nothing where none are meant for this
    process, or they were taken before.

    Names are those of FileDescriptorName= and FDNAME=; "" where there are none.
    """
    count, names = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_FDNAMES")
    meant = os.environ.get("LISTEN_PID") == str(os.getpid())
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    if not meant or not count.isdecimal():
        return []
    fds = range(FIRST, FIRST + int(count))
    for fd in fds:
        os.set_inheritable(fd, False)
    given = names.split(":") if names else []
    return [(given[index] if len(given) == len(fds) else "", fd) for index, fd in enumerate(fds)]
