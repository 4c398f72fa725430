"""Network interfaces of this process's namespace: index -> name (netdevice(7)), also after the interface is removed."""

from __future__ import annotations

import socket
from contextlib import suppress

from exporter.kernel.recent_names import RecentNames

MOST_NAMES = 4096  # veths come and go with containers; the kernel does not use an index again

_LARGEST = (1 << 31) - 1  # ifindex is an int in the kernel (include/linux/netdevice.h)


class Interfaces:
    """Names that are looked up each time, because they can change; of a removed interface the last known name."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._names = RecentNames[int](most)

    def name(self, index: int) -> str | None:
        """Return the name of the interface with this index (SIOCGIFNAME); None if there is and was none."""
        if not 0 < index <= _LARGEST:
            return None
        with suppress(OSError):
            self._names.add(index, socket.if_indextoname(index))
        return self._names.get(index)
