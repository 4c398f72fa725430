"""Network interfaces of this process's network namespace: index -> name, also after the interface is gone."""

from __future__ import annotations

import socket
from collections import OrderedDict

KEPT = 4096  # names kept; containers come and go with their veths, and an index is not used again

_LARGEST = (1 << 31) - 1  # ifindex is an int in the kernel (include/linux/netdevice.h)


class Interfaces:
    """Names asked of the kernel each time, because they can change; the last one known if the interface is gone."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._names: OrderedDict[int, str] = OrderedDict()

    def name(self, index: int) -> str | None:
        """By SIOCGIFNAME (netdevice(7)); None if there is no interface of this index and none was seen."""
        if not 0 < index <= _LARGEST:
            return None
        try:
            self._names[index] = socket.if_indextoname(index)
        except OSError:
            if index not in self._names:
                return None
        self._names.move_to_end(index)
        if len(self._names) > self._kept:
            self._names.popitem(last=False)
        return self._names[index]
