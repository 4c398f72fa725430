"""Telling systemd how the service does: sd_notify(3), one datagram to $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

WATCHDOG_SHARE = 3  # words within the time that the manager gives
TIMEOUT = 5.0  # seconds that a manager may be busy, as while it executes itself anew


def notify(*assignments: str) -> bool:
    """Send assignments such as "READY=1" and "STATUS=text"; whether it was sent. Nothing happens where no service
    manager asked for it."""
    return _send("\n".join(assignments))


def store(name: str, fd: int) -> bool:
    """Have the manager keep a descriptor over restarts of this unit, under this name; whether it was sent."""
    return _send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [fd])


def remove(name: str) -> bool:
    """Have the manager close what it keeps under this name."""
    return _send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def barrier() -> bool:
    """Wait until the manager has done what it was told before (sd_notify_barrier(3)); whether it has."""
    try:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
    except OSError:  # no descriptor left
        return False
    try:
        sent = _send("BARRIER=1", [theirs])
        os.close(theirs)
        poll = select.poll()
        poll.register(ours, 0)  # it hangs up when the manager closes its end
        return sent and bool(poll.poll(TIMEOUT * 1000))
    finally:
        os.close(ours)


def watchdog() -> float | None:
    """Seconds between two WATCHDOG=1; None where the manager wants none of this process (sd_watchdog_enabled(3))."""
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
            return False  # a manager that is gone must not end the service
    return True
