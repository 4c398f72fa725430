"""A page of metrics in pieces, compressed once for everybody who wants it so."""

from __future__ import annotations

import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby

from isal import isal_zlib

GZIP_LEVEL = 1  # isal's level 1 is as small as zlib's 6 on metrics text, at a fifth of the time
LARGE = 16 << 10  # bytes of a piece that is worth being remembered
_RAW = -15  # window bits that stand for deflate without a header
# RFC 1952: deflate, no flags, no time, the fastest algorithm, unknown system; and the empty block that ends a stream.
_HEAD, _END = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff", b"\x03\x00"

Piece = bytes | memoryview


class Compressed:
    """What the large pieces of the last page were compressed to: one that comes again, because nothing in it has
    changed, is not compressed again. Any thread may ask."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[memoryview], bytes]] = {}  # by id, as long as they are alive

    def page(self, pieces: Sequence[Piece]) -> list[bytes]:
        """gzip (RFC 1952); equal pieces give equal bytes."""
        known, now = self._known, {}
        deflate = isal_zlib.compressobj(GZIP_LEVEL, wbits=_RAW)
        found, check, length = [_HEAD], 0, 0
        for piece in _together(pieces):
            remembered = known.get(id(piece))
            if remembered is not None and remembered[0]() is piece:
                chunk = remembered[1]
            else:
                # A full flush: what follows does not depend on what was before, so it can stand anywhere.
                chunk = deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)
            if isinstance(piece, memoryview):
                now[id(piece)] = (weakref.ref(piece), chunk)
            found.append(chunk)
            check, length = isal_zlib.crc32(piece, check), length + len(piece)
        self._known = now
        return [*found, _END + check.to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")]


def _together(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Small ones that are side by side as one, and the large ones."""
    for large, some in groupby(pieces, lambda piece: len(piece) >= LARGE):
        if large:
            yield from some
        else:
            yield b"".join(some)


class Page:
    """Not changed once it is made; any thread may ask."""

    def __init__(self, pieces: Sequence[Piece], compressed: Compressed | None = None) -> None:
        """`compressed`: of the pages before."""
        self.plain = pieces
        self._compressed = Compressed() if compressed is None else compressed
        self._gzipped: list[bytes] | None = None
        self._lock = threading.Lock()

    def gzipped(self) -> Sequence[Piece]:
        with self._lock:
            if self._gzipped is None:
                self._gzipped = self._compressed.page(self.plain)
            return self._gzipped


def size(pieces: Sequence[Piece]) -> int:
    return sum(map(len, pieces))
