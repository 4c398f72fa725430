"""Block devices: dev_t -> name, also after the device is removed.

The kernel's dev_t has 12 bits of major and 20 of minor number (include/linux/kdev_t.h); what stat(2) gives user space
is packed otherwise. The name is that of /sys/dev/block/MAJOR:MINOR, a symlink that every user can read
(Documentation/ABI/stable/sysfs-dev).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from exporter.kernel.recent_names import RecentNames

MINORBITS = 20
MOST_NAMES = 4096  # loop and dm devices come and go

_LARGEST = (1 << 32) - 1


class BlockDevices:
    """Names that are read each time, because numbers are reused; of a removed device the last known name."""

    def __init__(self, sys: Path = Path("/sys"), most: int = MOST_NAMES) -> None:
        self._links = sys / "dev/block"
        self._names = RecentNames[int](most)

    def name(self, device: int) -> str | None:
        """Return the name of a dev_t: 8 << 20 | 2 is "sda2"; None if there is and was no such device."""
        if not 0 < device <= _LARGEST:
            return None
        with suppress(OSError):
            link = os.readlink(self._links / f"{device >> MINORBITS}:{device & ((1 << MINORBITS) - 1)}")
            # sysfs writes "!" for the "/" in names such as cciss/c0d0.
            self._names.add(device, link.rpartition("/")[2].replace("!", "/"))
        return self._names.get(device)
