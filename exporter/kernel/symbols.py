"""/proc/kallsyms: address -> function (proc(5)).

The kernel checks the credentials of the opener (kallsyms_show_value(), b25a7c5af905, 5.8): a descriptor that root
opened shows addresses to every reader, one that others opened shows zeros. The first lookup parses the file.
"""

from __future__ import annotations

import os
import re
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator

RELOAD_INTERVAL = 60.0  # seconds between two reads for unknown addresses (of a module loaded meanwhile)
LARGEST_FUNCTION = 1 << 20  # bytes; an address farther behind a symbol is in no function

_CHUNK = 1 << 18
# kallsyms(8): address, type, name, [module]. t T w W are code; any other symbol ends the function in front of it.
_LINE = re.compile(rb"^([0-9a-f]+) (.) ([^\t\n]+)(?:\t\[[^\n]*)?$", re.MULTILINE)
_CODE = b"tTwW"


class Symbols:
    """Functions of the kernel and its modules by address: about 3 MB for 60,000 functions."""

    def __init__(self, kallsyms: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`kallsyms`: a descriptor that root opened and this object owns; None for no symbols."""
        self._file = kallsyms
        self._clock = clock
        self._read: float | None = None
        self._starts = array("Q")  # ascending
        self._offsets = array("I")  # of each name in _names, which ends with a newline; 0 = no function starts here
        self._names = b"\n"

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def name(self, address: int) -> str | None:
        """Return the function that contains `address`, of several names the first in kallsyms; None if no one does."""
        found = self._find(address)
        if found is not None or self._file is None:
            return found
        now = self._clock()
        if self._read is not None and now - self._read < RELOAD_INTERVAL:
            return None
        self._read = now
        self._load(self._file)
        return self._find(address)

    def _find(self, address: int) -> str | None:
        if not 0 < address < 1 << 64:
            return None
        index = bisect_right(self._starts, address) - 1
        if index < 0 or not self._offsets[index] or address - self._starts[index] >= LARGEST_FUNCTION:
            return None
        offset = self._offsets[index]
        return self._names[offset : self._names.index(b"\n", offset)].decode("utf-8", "replace")

    def _load(self, file: int) -> None:
        starts, offsets, names = array("Q"), array("I"), bytearray(b"\n")
        for address, is_code, name in _symbols(file):
            if not is_code and (not offsets or not offsets[-1]):
                continue
            starts.append(address)
            offsets.append(len(names) if is_code else 0)
            if is_code:
                names += name + b"\n"
        self._starts, self._offsets = _in_order(starts, offsets)
        self._names = bytes(names)


def _symbols(file: int) -> Iterator[tuple[int, bool, bytes]]:
    """Yield (address, is code, name) of each line. Uses pread(2), because processes share the descriptor's offset."""
    offset, rest = 0, b""
    while True:
        try:
            chunk = os.pread(file, _CHUNK, offset)
        except OSError:
            return
        offset += len(chunk)
        text = rest + chunk
        cut = text.rfind(b"\n") + 1 if chunk else len(text)
        for match in _LINE.finditer(text, 0, cut):
            address = int(match[1], 16)
            if address:
                yield address, match[2] in _CODE, match[3]
        rest = text[cut:]
        if not chunk:
            return


def _in_order(starts: array[int], offsets: array[int]) -> tuple[array[int], array[int]]:
    """Return both arrays sorted by address, with one entry for each address: the first that has a name."""
    order = sorted(range(len(starts)), key=starts.__getitem__)
    sorted_starts, sorted_offsets = array("Q"), array("I")
    for index in order:
        if sorted_starts and sorted_starts[-1] == starts[index]:
            if not sorted_offsets[-1]:
                sorted_offsets[-1] = offsets[index]
            continue
        sorted_starts.append(starts[index])
        sorted_offsets.append(offsets[index])
    return sorted_starts, sorted_offsets
