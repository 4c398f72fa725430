"""The sample lines of a family, kept as text from scrape to scrape: only what changed is written anew.

The text lies in blocks of some thousand lines. A client may still be receiving a block, so a returned
block is never changed: changed lines go into a copy. A page is a list of blocks, and pages share unchanged blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.collecting.maps.table import Bytes, RowIndex
from exporter.collecting.text.decimals import WIDTH, Texts, float_text, texts
from exporter.collecting.text.templates import Series

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
        """Return the values of some series for their template, one behind the other."""
        bits = self.bits[rows]
        if len(set(self.kinds)) == 1:
            return tuple(_values(bits.ravel(), self.kinds[0]))
        table = np.empty(bits.shape, object)
        for kind, columns in self._by_kind():
            table[:, columns] = np.array(_values(bits[:, columns].ravel(), kind), object).reshape(len(bits), -1)
        return tuple(table.ravel().tolist())

    def texts(self, bits: Bits, at: NDArray[np.intp]) -> Texts:
        """Return the text of values that are at the lines `at`, counted from the first line of a series."""
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
    ends     (lines,) where in it each line ends: the offset of its newline, right behind the value
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
        self._series: Series | None = None  # of the blocks

    def arrange(self, series: Series, previous: RowIndex) -> None:
        """Keep the lines of series that stay for the series of the next update. `previous`: for each its position among
        those before, -1 for a new one, the others ascending."""
        self._series = series
        self._blocks = _remaining(self._blocks, previous, len(self._kinds)) if self._blocks else []

    def update(self, series: Series, cells: Cells, template: Callable[[slice], bytes]) -> list[memoryview]:
        """Return the lines of the series with these values.

        series    all lines are made anew unless they are those of the last update or of `arrange`
        template  gives the lines of some series with %d for each integer and %b for each float
        """
        blocks = self._blocks if series is self._series and cells.kinds == self._kinds else []
        self._blocks = []  # a block is free as soon as its successor is made, if nobody sends it
        blocks.reverse()
        each = len(cells.kinds)
        bits = np.ascontiguousarray(cells.bits).reshape(-1)
        found: list[_Block] = []
        start = 0
        while blocks:
            block = blocks.pop()
            end = start + len(block.bits)
            found.append(_with_values(block, bits[start:end], cells))
            start = end
        step = max(1, BLOCK // each)
        for first in range(start // each, len(cells.bits), step):
            rows = slice(first, min(first + step, len(cells.bits)))
            mine = bits[rows.start * each : rows.stop * each]
            found.append(_made(template(rows) % cells.values(rows), mine))
        self._blocks, self._kinds, self._series = _merged(found), cells.kinds, series
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
        # As one item each: an array of every offset at which `length` bytes begin, overlapping. So a text is one store.
        kind = f"V{length}"
        values: NDArray[np.void] = np.ndarray(len(new.rows), kind, new.rows, WIDTH - length, (WIDTH,))
        offsets: NDArray[np.void] = np.ndarray(len(text) - length + 1, kind, text, strides=(1,))
        offsets[ends_changed[rows] - length] = values[rows]
    return _Block(text.data, ends, lengths, bits.copy())


def _resized(
    block: _Block, at: NDArray[np.intp], lengths: NDArray[np.intp]
) -> tuple[Bytes, NDArray[np.int32], NDArray[np.uint8]]:
    """Return the text with room for values of other lengths at some lines, its ends and its lengths."""
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


def _remaining(blocks: Iterable[_Block], previous: RowIndex, each: int) -> list[_Block]:
    """Return the lines of the series that stay and have no new one in front of them."""
    new = np.flatnonzero(previous < 0)
    stay = previous[: new[0]] if len(new) else previous
    found: list[_Block] = []
    start = 0
    for block in blocks:
        end = start + len(block.bits) // each
        mine = stay[slice(*np.searchsorted(stay, (start, end)))] - start
        if len(mine) == end - start:
            found.append(block)
        elif len(mine):
            found.append(_without_others(block, mine, each))
        start = end
    return found


def _without_others(block: _Block, series: RowIndex, each: int) -> _Block:
    """Return a block of some of the series."""
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
    """Join small neighbours, once there are so many of them that they cost more than large ones."""
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
