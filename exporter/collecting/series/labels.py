"""Raw keys of a map -> the codes of each row's label texts, decoded once for each distinct field and kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.binding.bind import LabelField
from exporter.binding.paths import ORDERS
from exporter.collecting.maps.columns import narrow
from exporter.collecting.maps.hashing import hashes
from exporter.collecting.maps.table import Bytes, Entries, RowIndex, as_bytes, same_keys
from exporter.collecting.series.interned import NO_TEXT, NUMBER_LENGTH, Codes, StringTable
from exporter.collecting.series.label_sets import LabelSets, constant, is_constant
from exporter.decoders import Chain, Names

LOOK_AGAIN_SECONDS = 60.0  # a cgroup, interface or port owner can change under its number
DEFAULT_LENGTH = 128  # bytes of a label value (limits.label_length)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Label sets of a map's rows. While they stay the same, collections are given the same object, so `is` tells.

    labels   one for each row
    missing  the rows that have none after all, because a decoder drops them
    """

    labels: LabelSets
    missing: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.missing)


class KeyField:
    """One label: its bytes in a row -> the code of its text, cached by those bytes and bounded to the ones alive."""

    def __init__(
        self, label: LabelField, decode: Callable[[bytes], str | None], strings: StringTable, length: int
    ) -> None:
        self._label = label
        self._decode = decode
        self._strings = strings
        self._number = _plain_number(label) if length >= NUMBER_LENGTH else None
        self.source = label.source
        self.volatile = label.chain is not None and label.chain.volatile
        self._codes: dict[bytes, int] = {}

    def raw(self, entries: Entries, rows: RowIndex | None, cpus: RowIndex | None) -> Bytes:
        """Return the label's bytes of each row: (n, size). `rows` and `cpus`: of rows that are split by CPU."""
        label = self._label
        if label.source == "cpu":
            return np.ascontiguousarray(cpus, np.uint32).view(np.uint8).reshape(-1, 4)
        if label.source == "key":
            records = entries.keys if rows is None else entries.keys[rows]
        else:
            records = entries.values[:, 0] if rows is None else entries.values[rows, cpus]
        if label.number is not None:
            return narrow(records, label.number).view(np.uint8)
        return records[:, label.offset : label.offset + label.size]

    def codes(self, raw: Bytes) -> Codes:
        """Return the code of each row's text, NO_TEXT where it has none. Bytes not seen since `forget` are decoded,
        those not seen now are forgotten."""
        if len(raw) > 1 and _all_equal(raw):
            return constant(int(self.codes(raw[:1])[0]), len(raw))
        if self._number is not None:
            return self._strings.numbers(raw.view(self._number)[:, 0])
        order, starts = _runs(raw)
        fields = as_bytes(raw[order[starts]])
        distinct = np.fromiter(map(self._code, fields), np.int64, len(fields))
        self._keep(fields)
        codes = np.empty(len(raw), np.int64)
        codes[order] = np.repeat(distinct, np.diff(starts, append=len(raw)))
        return codes

    def _code(self, field: bytes) -> int:
        code = self._codes.get(field)
        if code is None:
            text = self._decode(field)
            code = self._codes[field] = NO_TEXT if text is None else self._strings.code(text)
        return code

    def _keep(self, fields: Collection[bytes]) -> None:
        """Forget all other fields, once they are so many that it is worth it."""
        if len(self._codes) > 2 * len(fields) + 1:
            self._codes = {field: self._codes[field] for field in fields}

    def forget(self) -> None:
        self._codes = {}

    def forget_dead(self) -> None:
        """Forget the codes that the string table has forgotten."""
        self._codes = {field: code for field, code in self._codes.items() if code == NO_TEXT or code in self._strings}


class LabelTexts:
    """The labels of one map as one set of metrics shows them; several metrics with equal labels share it."""

    def __init__(
        self,
        labels: Sequence[LabelField],
        names: Names,
        possible: Sequence[int],
        label_length: int = DEFAULT_LENGTH,
        strings: StringTable | None = None,
    ) -> None:
        """`strings`: of all labels that come together in a family."""
        self.labels = tuple(labels)
        self._strings = StringTable() if strings is None else strings
        self._fields: list[KeyField | str] = []  # in the order of the label names; a const is its text
        for label in labels:
            if label.source == "const":
                self._fields.append(label.const)
            elif label.source == "cpu":
                self._fields.append(KeyField(label, _cpu_text(possible), self._strings, label_length))
            else:
                assert label.chain is not None
                self._fields.append(KeyField(label, label.chain.bind(names, label_length), self._strings, label_length))
        self._decoded = [field for field in self._fields if isinstance(field, KeyField)]
        self._volatile = any(field.volatile for field in self._decoded)
        self._looked = -float("inf")
        self._by_key = all(field.source == "key" for field in self._decoded)
        self._keys: Bytes | None = None  # of the rows below, where labels come from nothing but keys
        self._rows = Rows(self.none, np.zeros(0, bool))

    def resolve(self, entries: Entries, now: float, rows: RowIndex | None = None, cpus: RowIndex | None = None) -> Rows:
        """Return the label sets of the entries.

        now         seconds of a monotonic clock: texts that can change are looked up again after a minute
        rows, cpus  row and index of the CPU of each label set, where a label splits entries by CPU
        """
        look_again = self._volatile and now - self._looked >= LOOK_AGAIN_SECONDS
        by_key = self._by_key and rows is None
        if by_key and not look_again and self._keys is not None and same_keys(entries.keys, self._keys):
            return self._rows
        self._keys = None  # until all is decoded: a decoder may raise
        if look_again:
            self._looked = now
            for field in self._decoded:
                if field.volatile:
                    field.forget()
        codes = [field.codes(field.raw(entries, rows, cpus)) for field in self._decoded]
        made = self._made(codes, len(entries) if rows is None else len(rows))
        if made.labels != self._rows.labels:
            self._rows = made
        if by_key:
            self._keys = entries.keys
        return self._rows

    def _made(self, decoded: Sequence[Codes], count: int) -> Rows:
        missing = np.zeros(count, bool)
        for codes in decoded:
            if not is_constant(codes) or (count and codes[0] == NO_TEXT):
                missing |= codes == NO_TEXT
        rest = iter(decoded)
        columns = [
            constant(self._strings.code(field), count) if isinstance(field, str) else next(rest)
            for field in self._fields
        ]
        return Rows(LabelSets(self._strings, columns, count), missing)

    @property
    def none(self) -> LabelSets:
        """No label sets, of these labels."""
        return self._made([np.empty(0, np.int64)] * len(self._decoded), 0).labels

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Columns of the codes that are in use here."""
        return self._rows.labels.columns

    def forget_dead(self) -> None:
        """Forget the codes that the string table has forgotten."""
        for field in self._decoded:
            field.forget_dead()


def _plain_number(label: LabelField) -> np.dtype[Any] | None:
    """Return the type of a field whose label is its number in decimal and nothing else, None for any other field."""
    if not isinstance(label.chain, Chain) or label.size not in (1, 2, 4, 8):
        return None
    names = [step.decoder.name for step in label.chain.steps]
    if names not in (["uint"], ["int"]):
        return None
    order = "=" if label.number is not None else ORDERS.get(label.chain.type.name, "=")
    return np.dtype(f"{order}{names[0][0]}{label.size}")


def _all_equal(raw: Bytes) -> bool:
    numbers = _numbers(raw)
    return bool((numbers[-1] == numbers[0]).all() and (numbers == numbers[0]).all())


def _numbers(raw: Bytes) -> NDArray[Any]:
    """Return the rows as numbers where they have the size of one: these are compared faster than bytes."""
    return raw.view(f"u{raw.shape[1]}") if raw.shape[1] in (1, 2, 4, 8) else raw


def _runs(raw: Bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return an order of the rows in which equal ones are side by side, and where each run of equal ones starts. Rows
    that differ and have one hash can break a run in two."""
    count, size = raw.shape
    padded = np.zeros((count, (size + 7) // 8 * 8), np.uint8)
    padded[:, :size] = raw
    columns = padded.view(np.uint64)
    order = np.argsort(columns[:, 0] if size <= 8 else hashes(list(columns.T), count))
    ordered = columns[order]
    new = np.ones(count, bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, np.flatnonzero(new)


def _cpu_text(possible: Sequence[int]) -> Callable[[bytes], str | None]:
    """Return the decoder of CPUs: slot i of a per-CPU value belongs to the i-th possible CPU."""

    def text(raw: bytes) -> str:
        return str(possible[int(np.frombuffer(raw, np.uint32)[0])])

    return text
