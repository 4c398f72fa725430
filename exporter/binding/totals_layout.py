"""The memory that a program's totals are kept in beyond the life of the server: what is in it, how large it is, made.

The supervisor makes it once for each loaded program and hands it down with the maps; a server that is killed leaves it
as its last commit said, and the next one goes on from there. The layout (collecting/series/totals_store.py writes it):

    0       magic, version, and the word that commits
    4096    what follows, as JSON: a reader that planned something else starts clean
            two banks, each with every family's numbers; the word says which one holds
            two halves of the log of label texts; when one is full, what is alive is copied into the other

Everything has its place before the first write, bounded by max_series and label_length; pages that nobody wrote cost
nothing. A memfd of this size cannot be made to shrink under a reader, nor to grow.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from exporter.binding.bind import Binding, bind_all
from exporter.ipc.messages import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK
from exporter.program import Program
from exporter.spec import ProgramSpec

VERSION = 1
PAGE = 4096
BANK_HEAD = 16  # bytes: which half of the log, and where it ends
FAMILY_HEAD = 16  # bytes: how many series there are, and how many of the last ones others fold into
MOST_DRAINED = 31  # maps: two bits each beside the bank's in the word that commits


@dataclass(frozen=True, slots=True)
class FamilyLayout:
    """One family's part. `width`: numbers of a series: 1 of a counter, the cumulative buckets and the sum of a
    histogram. `capacity`: series; `text`: bytes of the longest label set in the log."""

    name: str
    labels: tuple[str, ...]
    width: int
    capacity: int
    text: int

    @property
    def size(self) -> int:
        """Bytes in one bank: its head, where each series' text is, what is carried and what was shown."""
        return FAMILY_HEAD + self.capacity * 8 * (1 + 2 * self.width)


@dataclass(frozen=True, slots=True)
class TotalsLayout:
    """`drained`: the drained maps, in the order of their bits in the word that commits."""

    families: tuple[FamilyLayout, ...]
    drained: tuple[str, ...] = ()

    @property
    def description(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @property
    def start(self) -> int:
        """Where the first bank begins."""
        return PAGE + _pages(8 + len(self.description))

    @property
    def bank(self) -> int:
        return _pages(BANK_HEAD + sum(family.size for family in self.families))

    @property
    def log(self) -> int:
        """Bytes of one half of the log: twice what all places can need."""
        return _pages(2 * sum(family.capacity * family.text for family in self.families))

    @property
    def size(self) -> int:
        return self.start + 2 * self.bank + 2 * self.log


def of_program(program: Program, spec: ProgramSpec, possible_cpus: int, label_length: int) -> TotalsLayout:
    """The plan of a loaded program: what the supervisor makes the memory by, and the server opens it. BindingError as
    everywhere."""
    return layout(bind_all(spec.metrics, program.maps, spec.maps), possible_cpus, label_length)


def layout(bindings: Sequence[Binding], possible_cpus: int, label_length: int) -> TotalsLayout:
    """What the totals of a program's metrics need. Gauges have none."""
    families: dict[str, list[Binding]] = {}
    for binding in bindings:
        if binding.type != "gauge":
            families.setdefault(binding.metric, []).append(binding)
    laid_out = []
    for name, entries in families.items():
        first = entries[0]
        width = 1
        if first.buckets is not None:
            width = len(first.buckets.bounds) + 1 + all(b.buckets is not None and b.buckets.has_sum for b in entries)
        # Each entry folds into a set of its own where a const differs, and into one for each CPU.
        others = sum(possible_cpus if b.splits_cpus else 1 for b in entries)
        longest = max((len(label.const.encode()) for b in entries for label in b.labels), default=0)
        text = len(first.labels) * (max(longest, label_length) + 1) + 1
        laid_out.append(FamilyLayout(name, first.label_names, width, max(b.max_series for b in entries) + others, text))
    return TotalsLayout(tuple(laid_out), tuple(sorted({b.map for b in bindings if b.drained}))[:MOST_DRAINED])


def create(size: int) -> int:
    """The descriptor of a new memory of so many bytes, all zero. OSError if there is none to be had."""
    fd = os.memfd_create("totals", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _pages(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE
