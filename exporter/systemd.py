"""Protocols of systemd for services: sd_notify(3), the fd store (FDSTORE=), and passed fds (sd_listen_fds(3))."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

WATCHDOG_SHARE = 3  # WATCHDOG=1 messages within the timeout of the manager
LISTEN_FDS_START = 3  # SD_LISTEN_FDS_START
TIMEOUT = 5.0  # seconds that a manager can be busy, as in daemon-reexec


def notify(*assignments: str) -> bool:
    """Send assignments such as "READY=1" and "STATUS=text"; return True if they were sent, False without a manager."""
    return _send("\n".join(assignments))


def store_fd(name: str, fd: int) -> bool:
    """Add a descriptor to the fd store of this unit under this name; return True if it was sent."""
    return _send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [fd])


def remove_fd(name: str) -> bool:
    """Remove the descriptors of this name from the fd store."""
    return _send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def barrier() -> bool:
    """Wait until the manager has processed all earlier messages (sd_notify_barrier(3)); return True if it has."""
    try:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
    except OSError:  # EMFILE
        return False
    try:
        sent = _send("BARRIER=1", [theirs])
        os.close(theirs)
        poll = select.poll()
        poll.register(ours, 0)  # POLLHUP when the manager closes its end
        return sent and bool(poll.poll(TIMEOUT * 1000))
    finally:
        os.close(ours)


def watchdog_interval() -> float | None:
    """Return the seconds between two WATCHDOG=1; None without a watchdog for this process (sd_watchdog_enabled(3))."""
    text = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 1e6 / WATCHDOG_SHARE if meant and text.isdecimal() and int(text) else None


def _send(text: str, fds: Sequence[int] = ()) -> bool:
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(address)
            socket.send_fds(sock, [text.encode()], list(fds))
        except OSError:
            return False  # the service outlives a manager that does not answer
    return True


def take_fds() -> list[tuple[str, int]]:
    """Return (name, descriptor) of each passed descriptor, close-on-exec, which the caller owns; [] in the second call.

    Names are those of FileDescriptorName= and FDNAME=, "" without one.
    """
    count, names = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_FDNAMES")
    meant = os.environ.get("LISTEN_PID") == str(os.getpid())
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    if not meant or not count.isdecimal():
        return []
    fds = range(LISTEN_FDS_START, LISTEN_FDS_START + int(count))
    for fd in fds:
        os.set_inheritable(fd, False)
    given = names.split(":") if names else []
    return [(given[index] if len(given) == len(fds) else "", fd) for index, fd in enumerate(fds)]
