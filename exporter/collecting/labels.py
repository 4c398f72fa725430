"""Raw keys of a map -> label text of each row, looked up once for each distinct field and kept while the keys stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.binding import LabelField
from exporter.collecting.columns import narrow
from exporter.collecting.table import Bytes, Entries, as_bytes
from exporter.decoders import Names

LOOK_AGAIN_SECONDS = 60.0  # a cgroup, interface or port owner can change under its number
DEFAULT_LENGTH = 128  # bytes of a label value (limits.label_length)

LabelSet = tuple[str, ...]  # label values in the order of the label names


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Label sets of a map's rows. The same object is given again while nothing changed, so `is` tells.

    sets     one for each row; None for a row that a decoder drops
    dropped  how many are None
    """

    sets: list[LabelSet | None]
    dropped: int


class Field:
    """One label: its bytes in a row -> text, cached by those bytes and bounded to the ones that are alive."""

    def __init__(self, label: LabelField, decode: Callable[[bytes], str | None]) -> None:
        self._label = label
        self._decode = decode
        self.volatile = label.chain is not None and label.chain.volatile
        self._texts: dict[bytes, str | None] = {}

    def raw(self, entries: Entries, rows: NDArray[np.intp] | None, cpus: NDArray[np.intp] | None) -> Bytes:
        """The label's bytes of each row: (n, size). `rows` and `cpus` where rows are split by CPU."""
        label = self._label
        if label.source == "cpu":
            return np.ascontiguousarray(cpus, np.uint32).view(np.uint8).reshape(-1, 4)
        if label.number is not None:
            records = entries.keys if label.source == "key" else entries.values[:, 0]
            if rows is not None:
                records = entries.keys[rows] if label.source == "key" else entries.values[rows, cpus]
            return narrow(records, label.number).view(np.uint8)
        end = label.offset + label.size
        if label.source == "value":
            return (
                entries.values[:, 0, label.offset : end]
                if rows is None
                else entries.values[rows, cpus, label.offset : end]
            )
        keys = entries.keys[:, label.offset : end]
        return keys if rows is None else keys[rows]

    def texts(self, raw: Bytes) -> list[str | None]:
        """The text of each row. What was not seen since `forget` is decoded."""
        known = self._texts
        fields = as_bytes(raw)
        for field in dict.fromkeys(fields):
            if field not in known:
                known[field] = self._decode(field)
        return list(map(known.__getitem__, fields))

    def keep(self, raw: Bytes) -> None:
        """Forget what is not among the fields that are alive, once that is the greater part."""
        if len(self._texts) > 2 * len(raw):
            alive = set(as_bytes(raw))
            self._texts = {field: text for field, text in self._texts.items() if field in alive}

    def forget(self) -> None:
        self._texts = {}


class LabelTexts:
    """The labels of one map as one set of metrics shows them; several metrics with equal labels share it."""

    def __init__(
        self,
        labels: Sequence[LabelField],
        names: Names,
        possible: Sequence[int],
        label_length: int = DEFAULT_LENGTH,
    ) -> None:
        self.labels = tuple(labels)
        self._fields: list[Field | str] = []  # in the order of the label names; a const is its text
        for label in labels:
            if label.source == "const":
                self._fields.append(label.const)
            elif label.source == "cpu":
                self._fields.append(Field(label, _cpu_text(possible)))
            else:
                assert label.chain is not None
                self._fields.append(Field(label, label.chain.bind(names, label_length)))
        self._volatile = any(isinstance(field, Field) and field.volatile for field in self._fields)
        self._looked = -float("inf")
        self._seen: Bytes | None = None
        self._known: dict[bytes, LabelSet | None] = {}  # by the bytes that the labels use
        self._rows = Rows([], 0)

    def resolve(
        self,
        entries: Entries,
        now: float,
        rows: NDArray[np.intp] | None = None,
        cpus: NDArray[np.intp] | None = None,
    ) -> Rows:
        """Label sets of the entries at the time `now` (seconds of a monotonic clock); where a label splits by CPU, of
        the given `rows` and `cpus` (indices)."""
        fields = self._decoded()
        if not fields:
            return self._constant(len(entries))
        columns = [field.raw(entries, rows, cpus) for field in fields]
        seen = np.concatenate(columns, axis=1)
        look_again = self._volatile and now - self._looked >= LOOK_AGAIN_SECONDS
        if self._seen is not None and not look_again and np.array_equal(seen, self._seen):
            return self._rows
        self._seen = None  # until all is decoded: a collection that failed half way is not one to go by
        if look_again:
            self._looked = now
            self._known = {}
            for field in fields:
                if field.volatile:
                    field.forget()
        records = as_bytes(seen)
        self._learn(records, columns)
        sets = list(map(self._known.__getitem__, records))
        if len(self._known) > len(records):
            self._bound(records, sets, columns)
        if sets != self._rows.sets:
            self._rows = Rows(sets, sets.count(None))
        self._seen = seen
        return self._rows

    def _learn(self, records: list[bytes], columns: list[Bytes]) -> None:
        """Decode the records that are new."""
        fresh = [row for row, record in enumerate(records) if record not in self._known]
        if not fresh:
            return
        places = np.array(fresh)
        texts = iter([field.texts(column[places]) for field, column in zip(self._decoded(), columns, strict=True)])
        per_label = [[field] * len(fresh) if isinstance(field, str) else next(texts) for field in self._fields]
        for row, labels in zip(fresh, zip(*per_label, strict=True), strict=True):
            self._known[records[row]] = None if None in labels else labels

    def _bound(self, records: list[bytes], sets: list[LabelSet | None], columns: list[Bytes]) -> None:
        """Forget what is not alive."""
        self._known = dict(zip(records, sets, strict=True))
        for field, column in zip(self._decoded(), columns, strict=True):
            field.keep(column)

    def _decoded(self) -> list[Field]:
        return [field for field in self._fields if isinstance(field, Field)]

    def _constant(self, count: int) -> Rows:
        if len(self._rows.sets) != count:
            self._rows = Rows([tuple(str(field) for field in self._fields)] * count, 0)
        return self._rows


def _cpu_text(possible: Sequence[int]) -> Callable[[bytes], str | None]:
    """Slot i of a per-CPU value belongs to the i-th possible CPU."""

    def text(raw: bytes) -> str:
        return str(possible[int(np.frombuffer(raw, np.uint32)[0])])

    return text
