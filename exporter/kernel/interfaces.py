"""Network interfaces of this process's network namespace: index -> name."""

from __future__ import annotations

import socket

_LARGEST = (1 << 31) - 1  # ifindex is an int in the kernel (include/linux/netdevice.h)


def name(index: int) -> str | None:
    """The interface's name now, by SIOCGIFNAME (netdevice(7)); None if there is none of this index."""
    if not 0 < index <= _LARGEST:
        return None
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None
