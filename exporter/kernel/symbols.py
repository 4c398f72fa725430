"""/proc/kallsyms: address -> function, kept small.

A file opened by root reads in full for ever, whoever reads (kallsyms_show_value() asks the opener's credentials: commit
b25a7c5af905, 5.8); opened by others it shows zeros. It is parsed when the first address is asked for.
"""

from __future__ import annotations

import os
import re
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

RELOAD_INTERVAL = 60.0  # seconds between two reads when addresses miss (a module may have come)
LARGEST_FUNCTION = 1 << 20  # bytes; farther behind a symbol than this is in no function

_CHUNK = 1 << 18
# kallsyms(8): address, type, name, [module]. t T w W are code; any other symbol ends the function in front of it.
_LINE = re.compile(rb"^([0-9a-f]+) (.) ([^\t\n]+)(?:\t\[[^\n]*)?$", re.MULTILINE)
_CODE = b"tTwW"


class Symbols:
    """Functions of the kernel and its modules by address: about 3 MB for 60,000 of them."""

    def __init__(self, kallsyms: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`kallsyms` is a descriptor opened by root, owned from now on; None = nothing is known."""
        self._file = kallsyms
        self._clock = clock
        self._read: float | None = None
        self._starts = array("Q")  # ascending
        self._offsets = array("I")  # of each name in _names, which ends with a newline; 0 = no function starts here
        self._names = b"\n"

    @classmethod
    def open(cls, proc: Path = Path("/proc")) -> Symbols:
        try:
            return cls(os.open(proc / "kallsyms", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return cls(None)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def name(self, address: int) -> str | None:
        """The function that holds `address`; of several names for it the first in kallsyms. None if in none."""
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
        place = bisect_right(self._starts, address) - 1
        if place < 0 or not self._offsets[place] or address - self._starts[place] >= LARGEST_FUNCTION:
            return None
        offset = self._offsets[place]
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
    """(address, is code, name) line by line; by pread, because the descriptor may be shared with another process."""
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
    """Sorted by address, one entry an address: the first that has a name."""
    order = sorted(range(len(starts)), key=starts.__getitem__)
    sorted_starts, sorted_offsets = array("Q"), array("I")
    for place in order:
        if sorted_starts and sorted_starts[-1] == starts[place]:
            if not sorted_offsets[-1]:
                sorted_offsets[-1] = offsets[place]
            continue
        sorted_starts.append(starts[place])
        sorted_offsets.append(offsets[place])
    return sorted_starts, sorted_offsets
