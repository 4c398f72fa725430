"""Block devices: dev_t -> name, also after the device is gone.

The kernel's dev_t has 12 bits of major and 20 of minor number (include/linux/kdev_t.h); what stat(2) gives user space
is packed otherwise. The name is that of /sys/dev/block/MAJOR:MINOR, a link that everybody may read.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

MINORBITS = 20
KEPT = 4096  # names kept; loop and dm devices come and go

_LARGEST = (1 << 32) - 1


class BlockDevices:
    """Names asked of sysfs each time, because numbers are given anew; the last one known if the device is gone."""

    def __init__(self, sys: Path = Path("/sys"), kept: int = KEPT) -> None:
        self._links = sys / "dev/block"
        self._kept = kept
        self._names: OrderedDict[int, str] = OrderedDict()

    def name(self, device: int) -> str | None:
        """sda2 for the kernel's dev_t 8 << 20 | 2; None if there is no such device and none was seen."""
        if not 0 < device <= _LARGEST:
            return None
        try:
            link = os.readlink(self._links / f"{device >> MINORBITS}:{device & ((1 << MINORBITS) - 1)}")
            # sysfs writes "!" for the "/" in names such as cciss/c0d0.
            self._names[device] = link.rpartition("/")[2].replace("!", "/")
        except OSError:
            if device not in self._names:
                return None
        self._names.move_to_end(device)
        if len(self._names) > self._kept:
            self._names.popitem(last=False)
        return self._names[device]
