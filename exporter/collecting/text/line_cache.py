"""The sample lines of a family, kept as text from scrape to scrape: only what changed is written anew.

The text lies in blocks of some thousand lines. A block that was handed out is never changed: what differs is written to
a copy of it. So a page is a list of blocks, and pages that are being sent share those that stayed the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.table import Bytes
from exporter.collecting.series.label_sets import RowIndex
from exporter.collecting.text.decimals import WIDTH, Texts, float_text, texts
from exporter.collecting.text.templates import SeriesVersion

Bits = NDArray[np.uint64]

BLOCK = 4096  # lines: small enough for the second-level cache, large enough that a block's fixed costs are little
_NEWLINE, _BLANK = ord("\n"), ord(" ")


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The values of a family: `bits` (series, lines of each) hold numbers of 64 bits; `kinds` says for each line of a
    series what they are, as numpy's dtype does: u, i or f."""

    bits: Bits
    kinds: str

    def values(self, rows: slice) -> tuple[Any, ...]:
        """The values of some series for their template, one behind the other."""
        bits = self.bits[rows]
        if len(set(self.kinds)) == 1:
            return tuple(_values(bits.ravel(), self.kinds[0]))
        table = np.empty(bits.shape, object)
        for kind, columns in self._by_kind():
            table[:, columns] = np.array(_values(bits[:, columns].ravel(), kind), object).reshape(len(bits), -1)
        return tuple(table.ravel().tolist())

    def texts(self, bits: Bits, at: NDArray[np.intp]) -> Texts:
        """The text of values that are at the lines `at`, counted from the first line of a series."""
        if len(set(self.kinds)) == 1:
            return texts(bits, self.kinds[0])
        found = Texts(np.empty((len(bits), WIDTH), np.uint8), np.empty(len(bits), np.intp))
        for kind, columns in self._by_kind():
            mine = np.flatnonzero(np.isin(at % len(self.kinds), columns))
            part = texts(bits[mine], kind)
            found.rows[mine], found.lengths[mine] = part.rows, part.lengths
        return found

    def _by_kind(self) -> list[tuple[str, list[int]]]:
        return [(kind, [i for i, each in enumerate(self.kinds) if each == kind]) for kind in sorted(set(self.kinds))]


def _values(bits: Bits, kind: str) -> list[Any]:
    if kind == "f":
        return list(map(float_text, bits.view(np.float64).tolist()))
    return list(bits.view(f"{kind}8").tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Lines of some series.

    text     their text
    ends     (lines,) where in it each line ends: the place of its newline, right behind the value
    lengths  (lines,) of the values' text
    bits     (lines,) the values
    """

    text: memoryview
    ends: NDArray[np.int32]
    lengths: NDArray[np.uint8]
    bits: Bits


class LineCache:
    """The text of one family over its life."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._kinds = ""
        self._number: int | None = None  # of the series that the blocks are of

    @property
    def written(self) -> int | None:
        """The number of the series that were last written."""
        return self._number

    def update(self, series: SeriesVersion, cells: Cells, template: Callable[[slice], bytes]) -> list[memoryview]:
        """The lines of the series with these values. `template` gives the lines of some series with %d for each integer
        and %b for each float."""
        before, self._number = self._number, None  # until all is done
        blocks = deque(self._blocks if cells.kinds == self._kinds else [])
        each = len(cells.kinds)
        if series.number != before:
            known = series.follows == before and before is not None
            blocks = deque(_remaining(blocks, series.kept, each) if known and series.kept is not None else [])
        bits = np.ascontiguousarray(cells.bits).reshape(-1)
        self._blocks = []
        found: list[_Block] = []
        start = 0
        while blocks:
            block = blocks.popleft()  # free from now on, if nobody sends it
            end = start + len(block.bits)
            found.append(_with_values(block, bits[start:end], cells))
            start = end
        step = max(1, BLOCK // each)
        for first in range(start // each, len(cells.bits), step):
            rows = slice(first, min(first + step, len(cells.bits)))
            mine = bits[rows.start * each : rows.stop * each]
            found.append(_made(template(rows) % cells.values(rows), mine))
        self._blocks, self._kinds, self._number = _merged(found), cells.kinds, series.number
        return [block.text for block in self._blocks]


def _made(text: bytes, bits: Bits) -> _Block:
    characters = np.frombuffer(text, np.uint8)
    # No label or name has a newline in it: they are escaped. A value is what is behind the last blank of its line.
    ends = np.flatnonzero(characters == _NEWLINE)
    blanks = np.flatnonzero(characters == _BLANK)
    lengths = ends - blanks[np.searchsorted(blanks, ends) - 1] - 1
    return _Block(memoryview(text), ends.astype(np.int32), lengths.astype(np.uint8), bits.copy())


def _with_values(block: _Block, bits: Bits, cells: Cells) -> _Block:
    changed = np.flatnonzero(bits != block.bits)
    if not len(changed):
        return block
    new = cells.texts(bits[changed], changed)
    ends, lengths = block.ends, block.lengths
    resized = np.flatnonzero(new.lengths != lengths[changed])
    if len(resized):
        text, ends, lengths = _resized(block, changed[resized], new.lengths[resized])
    else:
        text = np.frombuffer(block.text, np.uint8).copy()
    ends_changed = ends[changed]
    for length in np.flatnonzero(np.bincount(new.lengths)).tolist():
        rows = np.flatnonzero(new.lengths == length)
        # As one item each. Every place of the text where `length` bytes begin, overlapping: so a text is one store.
        kind = f"V{length}"
        values: NDArray[np.void] = np.ndarray(len(new.rows), kind, new.rows, WIDTH - length, (WIDTH,))
        places: NDArray[np.void] = np.ndarray(len(text) - length + 1, kind, text, strides=(1,))
        places[ends_changed[rows] - length] = values[rows]
    return _Block(text.data, ends, lengths, bits.copy())


def _resized(
    block: _Block, at: NDArray[np.intp], lengths: NDArray[np.intp]
) -> tuple[Bytes, NDArray[np.int32], NDArray[np.uint8]]:
    """The text with room for values of other lengths at some lines, its ends and lengths."""
    ends, old = block.ends[at], block.lengths[at]
    pieces: list[memoryview | bytes] = []
    done = 0
    for start, end, length in zip((ends - old).tolist(), ends.tolist(), lengths.tolist(), strict=True):
        pieces += (block.text[done:start], _ROOM[length])
        done = end
    pieces.append(block.text[done:])
    new_lengths = block.lengths.copy()
    new_lengths[at] = lengths
    shifts = np.cumsum(new_lengths.astype(np.int32) - block.lengths, dtype=np.int32)
    return np.frombuffer(bytearray().join(pieces), np.uint8), block.ends + shifts, new_lengths


_ROOM = [bytes(length) for length in range(WIDTH + 1)]


def _remaining(blocks: Iterable[_Block], kept: RowIndex, each: int) -> list[_Block]:
    """The lines of the series that stay and have no new one in front of them."""
    new = np.flatnonzero(kept < 0)
    kept = kept[: new[0]] if len(new) else kept
    found: list[_Block] = []
    start = 0
    for block in blocks:
        end = start + len(block.bits) // each
        mine = kept[slice(*np.searchsorted(kept, (start, end)))] - start
        if len(mine) == end - start:
            found.append(block)
        elif len(mine):
            found.append(_without_others(block, mine, each))
        start = end
    return found


def _without_others(block: _Block, series: RowIndex, each: int) -> _Block:
    """The lines of some series of the block."""
    stops = block.ends[each - 1 :: each] + 1  # of all lines of a series
    starts = np.concatenate([stops[:1] * 0, stops[:-1]])
    gaps = np.flatnonzero(np.diff(series) != 1)
    first, last = series[np.concatenate([[0], gaps + 1])], series[np.concatenate([gaps, [-1]])]
    pieces = [block.text[start:stop] for start, stop in zip(starts[first].tolist(), stops[last].tolist(), strict=True)]
    sizes = (stops - starts)[series]
    shifts = np.cumsum(sizes) - sizes - starts[series]
    ends = (block.ends.reshape(-1, each)[series] + shifts[:, np.newaxis]).astype(np.int32).ravel()
    lengths, bits = block.lengths.reshape(-1, each)[series].ravel(), block.bits.reshape(-1, each)[series].ravel()
    return _Block(memoryview(b"".join(pieces)), ends, lengths, bits)


def _merged(blocks: list[_Block]) -> list[_Block]:
    """Small neighbours made one, once there are so many of them that they cost more than large ones."""
    if len(blocks) <= 4 + 2 * sum(len(block.bits) for block in blocks) // BLOCK:
        return blocks
    found: list[_Block] = []
    for block in blocks:
        if found and len(found[-1].bits) + len(block.bits) <= BLOCK:
            found[-1] = _joined(found[-1], block)
        else:
            found.append(block)
    return found


def _joined(one: _Block, other: _Block) -> _Block:
    return _Block(
        memoryview(b"".join([one.text, other.text])),
        np.concatenate([one.ends, other.ends + np.int32(len(one.text))]),
        np.concatenate([one.lengths, other.lengths]),
        np.concatenate([one.bits, other.bits]),
    )
