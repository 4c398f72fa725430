"""The layout of the sealed memfd (memfd_create(2), fcntl(2)) with a program's totals, which outlive the server.

The supervisor creates one memfd for each loaded program and sends it with the maps. A server that is killed leaves its
last commit, and the next server continues from it. The layout (collecting/series/totals_store.py writes it):

    0       magic, version, and the commit word
    4096    description of the rest as JSON: a reader with another description starts with zeros
            two banks, each with the numbers of every family; the commit word selects one
            two halves of the log of label texts; when one is full, the live texts are copied into the other

All offsets are fixed before the first write, bounded by max_series and label_length. Pages that are not written take no
memory. The seals keep the size: the memfd cannot shrink under a reader, nor grow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from exporter.binding.bind import Binding, bind_all
from exporter.program import Program
from exporter.spec import ProgramSpec

VERSION = 1
PAGE = 4096
BANK_HEAD = 16  # bytes: half of the log, and its end
FAMILY_HEAD = 16  # bytes: number of series, and how many of the last ones are "other"
MOST_DRAINED = 31  # maps: two bits each beside the bank's in the commit word


@dataclass(frozen=True, slots=True)
class FamilyLayout:
    """The part of one family.

    width     numbers of a series: 1 of a counter, the cumulative buckets and the sum of a histogram
    capacity  series
    text      bytes of the longest label set in the log
    """

    name: str
    labels: tuple[str, ...]
    width: int
    capacity: int
    text: int

    @property
    def size(self) -> int:
        """Bytes in one bank: head, the offset of each series' text, carried and shown numbers."""
        return FAMILY_HEAD + self.capacity * 8 * (1 + 2 * self.width)


@dataclass(frozen=True, slots=True)
class TotalsLayout:
    """`drained`: the drained maps in the order of their bits in the commit word."""

    families: tuple[FamilyLayout, ...]
    drained: tuple[str, ...] = ()

    @property
    def description(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @property
    def start(self) -> int:
        """Offset of the first bank."""
        return PAGE + _pages(8 + len(self.description))

    @property
    def bank(self) -> int:
        return _pages(BANK_HEAD + sum(family.size for family in self.families))

    @property
    def log(self) -> int:
        """Bytes of one half of the log: twice the size of all label sets."""
        return _pages(2 * sum(family.capacity * family.text for family in self.families))

    @property
    def size(self) -> int:
        return self.start + 2 * self.bank + 2 * self.log


def of_program(program: Program, spec: ProgramSpec, possible_cpus: int, label_length: int) -> TotalsLayout:
    """Return the layout of a loaded program, with which the supervisor creates the memory and the server opens it.
    BindingError."""
    return layout(bind_all(spec.metrics, program.maps, spec.maps), possible_cpus, label_length)


def layout(bindings: Sequence[Binding], possible_cpus: int, label_length: int) -> TotalsLayout:
    """Return the layout of the totals of all counters and histograms."""
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
        # Each entry has its own "other" where a const differs, and one for each CPU.
        others = sum(possible_cpus if b.splits_cpus else 1 for b in entries)
        longest = max((len(label.const.encode()) for b in entries for label in b.labels), default=0)
        text = len(first.labels) * (max(longest, label_length) + 1) + 1
        laid_out.append(FamilyLayout(name, first.label_names, width, max(b.max_series for b in entries) + others, text))
    return TotalsLayout(tuple(laid_out), tuple(sorted({b.map for b in bindings if b.drained}))[:MOST_DRAINED])


def _pages(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE
