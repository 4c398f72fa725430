"""The memory that outlives the server (exporter/binding/totals_layout.py) <-> totals and label sets of families.

Two banks: one is valid while the other is written, then one store of eight bytes makes the other one valid. A process
killed at any instruction has done all stores before it and none after it, so a reader finds one commit or the other,
never half of one. The same eight bytes say of each drained map which half of its pair is counted in the totals and not
yet empty.

A compromised server can write anything here: the reader checks all it finds before it uses it, and starts clean where
something is wrong.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from exporter import log
from exporter.binding.totals_layout import BANK_HEAD, FAMILY_HEAD, PAGE, VERSION, FamilyLayout, TotalsLayout
from exporter.collecting.maps.table import RowIndex
from exporter.collecting.series import label_text
from exporter.collecting.series.label_sets import LabelSet, LabelSets

_log = log.get()

Numbers = NDArray[np.uint64]

_MAGIC = int.from_bytes(b"bpfxtot" + bytes([VERSION]), "little")
_MAGIC_AT, _STATE_AT = 0, 1  # offsets in the first page, in 8 bytes
# No byte of UTF-8 (RFC 3629), so they part label values and sets whatever those hold.
_VALUE_END, _SET_END = b"\xfe", b"\xff"
_UNKNOWN = object()  # what a previous server wrote
_AT_ONCE = 8192  # label sets that are made text at a time
_RECORD = 256  # bytes: more than most label sets


class NonsenseError(Exception):
    """The memory holds something that no commit could have left there."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A family as the last commit left it.

    sets     the label sets of its series
    folded   how many of the last series others fold into
    carried  (series, width): what keys that are gone had counted
    shown    (series, width): what the series showed
    """

    sets: list[LabelSet]
    folded: int
    carried: Numbers
    shown: Numbers


class FamilyStore:
    """One family's part of both banks. Numbers are written at every commit, label sets once, when a series is new."""

    def __init__(self, plan: FamilyLayout, banks: tuple[Numbers, Numbers], log: _Log) -> None:
        self.plan = plan
        self._log = log
        self._banks = [_Parts(plan, numbers) for numbers in banks]
        self._texts = np.empty(0, np.uint64)  # where each series' label set is in the log
        # What a bank still lacks: the label sets, and `carried` where it is another array than last time.
        self._unnamed = [True, True]
        self._carried: list[object] = [None, None]
        log.families.add(self)

    def arrange(self, previous: RowIndex, new: LabelSets) -> None:
        """Put the series in a new order, from the next commit on.

        previous  for each series its position before, -1 for a new one
        new       the label sets of the new ones, in their order

        ValueError where there is no room for so many, or for one of them.
        """
        if len(previous) > self.plan.capacity:
            raise ValueError(f"{len(previous)} series where {self.plan.capacity} have room")
        stays = previous >= 0
        self._texts = self._texts[previous[stays]]
        self._log.make_room(len(new) * self.plan.text)  # may move those that stay
        added = self._log.append(new, self.plan.text)
        texts = np.empty(len(previous), np.uint64)
        texts[stays], texts[~stays] = self._texts, added
        self._texts = texts
        self._unnamed = [True, True]

    def write(self, bank: int, folded: int, carried: Numbers | None, shown: Sequence[Numbers]) -> None:
        """Write what the next commit makes valid.

        folded   how many of the last series others fold into
        carried  (series, width), None for all zero. The caller replaces this array and never changes it, so one that is
                 in the bank already is not written again
        shown    columns that are (series, width) side by side
        """
        parts = self._banks[bank]
        count = len(self._texts)
        start = 0
        for column in shown:
            parts.shown[:count, start : start + column.shape[1]] = column
            start += column.shape[1]
        if self._carried[bank] is not carried:
            parts.carried[:count] = 0 if carried is None else carried
            self._carried[bank] = carried
        if self._unnamed[bank]:
            parts.texts[:count] = self._texts
            self._unnamed[bank] = False
        parts.head[:] = count, folded

    def write_nothing(self, bank: int) -> None:
        """The family is not in the next commit."""
        self._texts = self._texts[:0]
        self._banks[bank].head[:] = 0

    def move(self) -> None:
        """Copy the label sets that are alive to the other half of the log."""
        self._texts[:] = self._log.copied(self._texts.tolist())
        self._unnamed = [True, True]

    def clean(self) -> None:
        """Forget all series, and overwrite what is in the banks."""
        self._texts = np.empty(0, np.uint64)
        for parts in self._banks:
            parts.head[:] = 0
            parts.carried[:] = 0
        self._unnamed, self._carried = [True, True], [None, None]

    def read(self, bank: int) -> Committed:
        """Return what the bank holds. NonsenseError where no commit could have left it so."""
        parts = self._banks[bank]
        used, folded = int(parts.head[0]), int(parts.head[1])
        if used > self.plan.capacity or folded > used:
            raise NonsenseError(f"{self.plan.name}: {used} series, {folded} of them folded, in {self.plan.capacity}")
        self._texts = parts.texts[:used].copy()
        self._unnamed, self._carried = [True, True], [_UNKNOWN, _UNKNOWN]
        labels, most = len(self.plan.labels), self.plan.text
        sets = [self._log.read(at, labels, most) for at in self._texts.tolist()]
        if len(set(sets)) != len(sets):
            raise NonsenseError(f"{self.plan.name}: a label set twice")
        return Committed(sets, folded, parts.carried[:used].copy(), parts.shown[:used].copy())


class _Parts:
    """Views into one bank."""

    def __init__(self, plan: FamilyLayout, numbers: Numbers) -> None:
        count, size = plan.capacity, plan.capacity * plan.width
        first = FAMILY_HEAD // 8
        self.head = numbers[:first]
        self.texts = numbers[first : first + count]
        self.carried = numbers[first + count : first + count + size].reshape(count, plan.width)
        self.shown = numbers[first + count + size :].reshape(count, plan.width)


class _Log:
    """Label sets one behind the other in one of two halves, each twice as large as all series need: what one commit
    adds has room behind what was alive before it."""

    def __init__(self, halves: tuple[memoryview, memoryview]) -> None:
        self._halves = halves
        # Weak: no circle, so that the memory and its descriptor go with the collector that is closed.
        self.families: WeakSet[FamilyStore] = WeakSet()
        self.half = 0
        self.end = 0

    def start(self, half: int, end: int) -> None:
        if half > 1 or end > len(self._halves[half]):
            raise NonsenseError(f"label sets up to {end} of half {half}")
        self.half, self.end = half, end

    def make_room(self, size: int) -> None:
        """Make room for so many bytes more, in the other half if need be."""
        if self.end + size > len(self._halves[self.half]):
            # The half that the last commit reads from stays as it is.
            self.half, self.end = 1 - self.half, 0
            for family in self.families:
                family.move()

    def append(self, sets: LabelSets, most: int) -> Numbers:
        """Return where each begins; `most`: bytes that one may take. There must be room. ValueError for a longer
        one."""
        starts = np.empty(len(sets), np.uint64)
        for first in range(0, len(sets), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            text = label_text.values(sets.part(rows), _VALUE_END, _SET_END)
            ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _SET_END[0]) + 1
            mine = np.concatenate([[0], ends[:-1]])
            if (ends - mine).max() > most:
                raise ValueError(f"a label set of {(ends - mine).max()} bytes where {most} were planned")
            starts[first : first + len(mine)] = mine + self.end
            self._put(text)
        return starts

    def copied(self, offsets: Sequence[int]) -> list[int]:
        """Append records of the other half here, and return where they begin now."""
        now = []
        for at in offsets:
            now.append(self.end)
            self._put(self._record(1 - self.half, at, len(self._halves[0])) + _SET_END)
        return now

    def read(self, at: int, labels: int, most: int) -> LabelSet:
        try:
            values = self._record(self.half, at, min(at + most, self.end)).split(_VALUE_END)
            if not labels and values == [b""]:
                return ()
            if len(values) != labels:
                raise NonsenseError(f"{len(values)} label values where there are {labels}")
            return tuple([value.decode() for value in values])
        except UnicodeDecodeError as error:
            raise NonsenseError(f"a label value that is not UTF-8: {error}") from error

    def _record(self, half: int, start: int, end: int) -> bytes:
        record, found, _ = bytes(self._halves[half][start : min(end, start + _RECORD)]).partition(_SET_END)
        if not found and start + _RECORD < end:
            record, found, _ = bytes(self._halves[half][start:end]).partition(_SET_END)
        if not found:
            raise NonsenseError(f"no label set at {start}")
        return record

    def _put(self, text: bytes) -> None:
        self._halves[self.half][self.end : self.end + len(text)] = text
        self.end += len(text)


class Store:
    """The whole memory, opened. Not for two threads.

    families   by metric name
    committed  what the last commit holds of each family; {} for new memory
    """

    def __init__(self, fd: int, plan: TotalsLayout) -> None:
        """OSError where it cannot be mapped, ValueError where it is smaller than planned. The descriptor stays the
        caller's."""
        self._map = mmap.mmap(fd, plan.size)
        memory = memoryview(self._map)
        numbers = np.frombuffer(memory, np.uint64)
        self._head = numbers[: PAGE // 8]
        self._described = memory[PAGE : PAGE + 8 + len(plan.description)]
        self.plan = plan
        starts = [(plan.start + bank * plan.bank) // 8 for bank in (0, 1)]
        self._ends = [numbers[at : at + BANK_HEAD // 8] for at in starts]
        logs = [plan.start + 2 * plan.bank + half * plan.log for half in (0, 1)]
        self._log = _Log((memory[logs[0] : logs[0] + plan.log], memory[logs[1] : logs[1] + plan.log]))
        self.families: dict[str, FamilyStore] = {}
        at = BANK_HEAD // 8
        for family in plan.families:
            size = family.size // 8
            first, second = (numbers[start + at : start + at + size] for start in starts)
            self.families[family.name] = FamilyStore(family, (first, second), self._log)
            at += size
        self.committed: dict[str, Committed] = {}
        self._bank = 0
        self._uncleared: dict[str, int] = {}
        try:
            self._read()
        except NonsenseError as error:
            _log.warning("totals of the previous server are not used: counters start again", error=str(error))
            self._head[_MAGIC_AT] = 0
            for one in self.families.values():
                one.clean()
            self._start()

    @property
    def uncleared(self) -> Mapping[str, int]:
        """Drained maps -> the half of the pair (0, 1) that is counted and has to be emptied before it is used again."""
        return self._uncleared

    @property
    def next_bank(self) -> int:
        """The bank that all families are written into before a commit."""
        return 1 - self._bank

    def commit(self, uncleared: Mapping[str, int]) -> None:
        """Make valid what was written into the next bank."""
        bank = self.next_bank
        self._ends[bank][:] = self._log.half, self._log.end
        self._bank = bank
        self._set(uncleared)

    def cleared(self) -> None:
        """Record that the uncleared halves are empty."""
        if self._uncleared:
            self._set({})

    def _set(self, uncleared: Mapping[str, int]) -> None:
        state = self._bank
        for position, name in enumerate(self.plan.drained):
            if name in uncleared:
                state |= (1 + uncleared[name]) << (2 + 2 * position)
        self._head[_STATE_AT] = state  # one aligned store of eight bytes: the commit
        self._uncleared = dict(uncleared)

    def _read(self) -> None:
        magic = int(self._head[_MAGIC_AT])
        if not magic:
            self._start()
            return
        if magic != _MAGIC:
            raise NonsenseError(f"not totals of version {VERSION}")
        if bytes(self._described) != self._description():
            raise NonsenseError("they are of other metrics")
        state = int(self._head[_STATE_AT])
        self._bank = state & 1
        self._log.start(*(int(number) for number in self._ends[self._bank]))
        committed = {name: family.read(self._bank) for name, family in self.families.items()}
        for position, name in enumerate(self.plan.drained):
            half = state >> (2 + 2 * position) & 3
            if half == 3:
                raise NonsenseError(f"both halves of map {name} uncleared")
            if half:
                self._uncleared[name] = half - 1
        self.committed = committed

    def _start(self) -> None:
        """Begin with empty banks."""
        self._log.start(0, 0)
        self._ends[0][:] = 0
        self._bank = 0
        self._set({})
        self._described[:] = self._description()
        self._head[_MAGIC_AT] = _MAGIC

    def _description(self) -> bytes:
        return len(self.plan.description).to_bytes(8, "little") + self.plan.description
