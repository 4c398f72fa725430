"""pci.ids: numbers of PCI vendors, devices and classes -> names.

The file of pci-ids.ucw.cz as distributions ship it (Debian: package pci.ids). Its format, from its own head:
`vendor  name`, below it `TAB device  name`; `C class  name`, below it `TAB subclass  name`. The file has
1.3 MB: it is searched once for each new number and the answer is cached, since a host has some dozens of devices.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

PATHS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")  # below the root: Debian; Fedora, SUSE
CACHED = 1024  # answers of each kind

# A block is a head line and the lines below it that begin with a tab or a comment.
_BLOCK = r"^{head}  (?P<name>[^\n]*)\n(?P<below>(?:[\t#][^\n]*\n)*)"


class PciIds:
    """Names in the first pci.ids file that exists; without a file every number is unknown."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._paths = [root / path for path in PATHS]
        self._vendor = lru_cache(CACHED)(lambda number: self._find(f"{number:04x}", None))
        self._device = lru_cache(CACHED)(lambda number: self._find(f"{number >> 16:04x}", f"{number & 0xFFFF:04x}"))
        self._class = lru_cache(CACHED)(lambda number: self._find(f"C {number:02x}", None))
        self._subclass = lru_cache(CACHED)(lambda number: self._find(f"C {number >> 8:02x}", f"{number & 0xFF:02x}"))

    def vendor(self, number: int) -> str | None:
        """Return the name of a vendor of 16 bits: 0x8086 is "Intel Corporation"."""
        return self._vendor(number) if 0 <= number <= 0xFFFF else None

    def device(self, number: int) -> str | None:
        """Return the name of a device: vendor in the upper 16 bits, device in the lower."""
        return self._device(number) if 0 <= number <= 0xFFFFFFFF else None

    def class_(self, number: int) -> str | None:
        """Return the name of a base class of 8 bits: 0x02 is "Network controller"."""
        return self._class(number) if 0 <= number <= 0xFF else None

    def subclass(self, number: int) -> str | None:
        """Return the name of a subclass: base class in the upper 8 bits, subclass in the lower: 0x0200 is "Ethernet
        controller"."""
        return self._subclass(number) if 0 <= number <= 0xFFFF else None

    def _find(self, head: str, below: str | None) -> str | None:
        block = re.search(_BLOCK.format(head=head), self._text(), re.MULTILINE)
        if block is None or below is None:
            return block["name"].strip() if block else None
        line = re.search(rf"^\t{below}  ([^\n]*)$", block["below"], re.MULTILINE)
        return line[1].strip() if line else None

    def _text(self) -> str:
        for path in self._paths:
            try:
                return path.read_text("utf-8", "replace")
            except OSError:
                continue
        return ""
