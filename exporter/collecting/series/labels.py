"""Raw keys of a map -> the codes of each row's label texts, looked up once for each distinct field and kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.binding.bind import LabelField
from exporter.binding.paths import ORDERS
from exporter.collecting.maps.columns import narrow
from exporter.collecting.maps.key_matcher import KeyMatcher
from exporter.collecting.maps.table import Bytes, Entries, as_bytes, same_keys
from exporter.collecting.series.interned import NO_TEXT, NUMBER_LENGTH, Codes, StringTable
from exporter.collecting.series.label_sets import FEW, LabelSet, LabelSets, RowIndex, constant, hashes, is_constant
from exporter.decoders import Chain, Names

LOOK_AGAIN_SECONDS = 60.0  # a cgroup, interface or port owner can change under its number
DEFAULT_LENGTH = 128  # bytes of a label value (limits.label_length)

_numbers_of_rows = count()


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Label sets of a map's rows. The same object is given again while nothing changed, so `is` tells.

    labels   one for each row
    missing  the rows that have none after all, because a decoder drops them
    number   no other Rows have it
    follows  the number of those from which rows were taken over with their labels; None if from none
    was      which row of those each is, -1 for one that is not of them
    """

    labels: LabelSets
    missing: NDArray[np.bool_]
    number: int = dataclass_field(default_factory=lambda: next(_numbers_of_rows))
    follows: int | None = None
    was: RowIndex | None = None

    def __len__(self) -> int:
        return len(self.missing)

    @property
    def dropped(self) -> int:
        return int(np.count_nonzero(self.missing))

    @property
    def sets(self) -> list[LabelSet | None]:
        """As text, None for a row without."""
        texts = iter(self.labels.at(~self.missing))
        return [None if missing else next(texts) for missing in self.missing.tolist()]


class KeyField:
    """One label: its bytes in a row -> the code of its text, cached by those bytes and bounded to the ones alive."""

    def __init__(
        self, label: LabelField, decode: Callable[[bytes], str | None], words: StringTable, length: int
    ) -> None:
        self._label = label
        self._decode = decode
        self._words = words
        self._number = _plain_number(label) if length >= NUMBER_LENGTH else None
        self.source = label.source
        self.volatile = label.chain is not None and label.chain.volatile
        self._codes: dict[bytes, int] = {}

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

    def codes(self, raw: Bytes, *, all_rows: bool = True) -> Codes:
        """The code of each row's text, NO_TEXT where it has none. What was not seen since `forget` is decoded; with
        `all_rows` what is not seen now is forgotten."""
        if len(raw) <= FEW:
            return self._codes_of_few(raw, all_rows)
        if _all_equal(raw):
            return constant(int(self._codes_of_few(raw[:1], all_rows)[0]), len(raw))
        if self._number is not None:
            return self._words.numbers(raw.view(self._number)[:, 0])
        order, starts = _runs(raw)
        fields = as_bytes(raw[order[starts]])
        distinct = np.fromiter(map(self._code, fields), np.int64, len(fields))
        if all_rows:
            self._keep(fields)
        codes = np.empty(len(raw), np.int64)
        lengths = np.diff(starts, append=len(raw))
        codes[order] = np.repeat(distinct, lengths)
        return codes

    def _codes_of_few(self, raw: Bytes, all_rows: bool) -> Codes:
        """One after the other: numpy would take longer to begin."""
        if self._number is not None:
            codes = [self._words.code(str(number)) for number in raw.view(self._number)[:, 0].tolist()]
        else:
            fields = as_bytes(raw)
            codes = list(map(self._code, fields))
            if all_rows:
                self._keep(set(fields))
        return constant(codes[0], len(codes)) if len(set(codes)) == 1 else np.array(codes, np.int64)

    def _code(self, field: bytes) -> int:
        code = self._codes.get(field)
        if code is None:
            text = self._decode(field)
            code = self._codes[field] = NO_TEXT if text is None else self._words.code(text)
        return code

    def _keep(self, fields: Collection[bytes]) -> None:
        """Forget the others, once they are so many that it is worth it."""
        if self.crowded(len(fields)):
            self._codes = {field: self._codes[field] for field in fields}

    def crowded(self, rows: int) -> bool:
        """Whether more is kept than so many rows are worth: what is dead goes when all rows are decoded."""
        return len(self._codes) > 2 * rows + 1

    def forget(self) -> None:
        self._codes = {}

    def forget_words(self) -> None:
        self._codes = {field: code for field, code in self._codes.items() if code == NO_TEXT or code in self._words}


class LabelTexts:
    """The labels of one map as one set of metrics shows them; several metrics with equal labels share it."""

    def __init__(
        self,
        labels: Sequence[LabelField],
        names: Names,
        possible: Sequence[int],
        label_length: int = DEFAULT_LENGTH,
        words: StringTable | None = None,
        matcher: KeyMatcher | None = None,
    ) -> None:
        """`words`: those of all labels that come together in a family; `matcher`: of the map."""
        self.labels = tuple(labels)
        self._matcher = KeyMatcher() if matcher is None else matcher
        self._words = StringTable() if words is None else words
        self._fields: list[KeyField | str] = []  # in the order of the label names; a const is its text
        for label in labels:
            if label.source == "const":
                self._fields.append(label.const)
            elif label.source == "cpu":
                self._fields.append(KeyField(label, _cpu_text(possible), self._words, label_length))
            else:
                assert label.chain is not None
                self._fields.append(KeyField(label, label.chain.bind(names, label_length), self._words, label_length))
        self._decoded = [field for field in self._fields if isinstance(field, KeyField)]
        self._volatile = any(field.volatile for field in self._decoded)
        self._looked = -float("inf")
        self._by_key = all(field.source == "key" for field in self._decoded)
        self._seen: list[Bytes] | None = None  # the fields' bytes of the rows below
        self._keys: Bytes | None = None  # the whole keys, where labels come from nothing else
        self._rows = Rows(self.none, np.zeros(0, bool))

    def looks_again(self, now: float) -> bool:
        """Whether texts may have changed although what they are of has not."""
        return self._volatile and now - self._looked >= LOOK_AGAIN_SECONDS

    def resolve(
        self,
        entries: Entries,
        now: float,
        rows: NDArray[np.intp] | None = None,
        cpus: NDArray[np.intp] | None = None,
    ) -> Rows:
        """Label sets of the entries at the time `now` (seconds of a monotonic clock); where a label splits by CPU, of
        the given `rows` and `cpus` (indices)."""
        look_again = self.looks_again(now)
        by_key = self._by_key and rows is None
        if by_key and not look_again and self._keys is not None and same_keys(entries.keys, self._keys):
            return self._rows
        before, self._keys = self._keys, None  # until all is decoded: one that failed half way is not one to go by
        if by_key and not look_again and before is not None and self._follow(entries, before):
            return self._rows
        count = len(entries) if rows is None else len(rows)
        raw = [field.raw(entries, rows, cpus) for field in self._decoded]
        same = self._seen is not None and len(self._rows) == count and all(map(_equal, raw, self._seen))
        if look_again or not same:
            self._seen = None
            self._decode(raw, count, now if look_again else None)
        if by_key:
            self._keys = entries.keys
            self._seen = raw
        else:
            self._seen = [each.copy() for each in raw]
        return self._rows

    def _follow(self, entries: Entries, before: Bytes) -> bool:
        """Take the labels of rows that stay over from the read that had the keys `before`, and decode the others. Does
        nothing where that is most of them, or where what was decoded once has to be looked through."""
        was = self._matcher.places(entries.keys, before)
        new = np.flatnonzero(was < 0)
        if 2 * len(new) > len(was) or any(each.crowded(len(was)) for each in self._decoded):
            return False
        added = Entries(entries.keys[new], entries.values[:0])
        raw = [each.raw(added, None, None) for each in self._decoded]
        codes = [each.codes(mine, all_rows=False) for each, mine in zip(self._decoded, raw, strict=True)]
        made = self._made(codes, len(new))
        columns = [
            _replaced(column, was, new, mine)
            for column, mine in zip(self._rows.labels.columns, made.labels.columns, strict=True)
        ]
        labels = LabelSets(self._words, columns, len(was))
        if labels != self._rows.labels:
            missing = self._rows.missing[was]
            missing[new] = made.missing
            self._rows = Rows(labels, missing, follows=self._rows.number, was=was)
        self._keys, self._seen = entries.keys, None
        return True

    def _decode(self, raw: Sequence[Bytes], count: int, look_again: float | None) -> None:
        if look_again is not None:
            self._looked = look_again
            for field in self._decoded:
                if field.volatile:
                    field.forget()
        made = self._made([field.codes(each) for field, each in zip(self._decoded, raw, strict=True)], count)
        if made.labels != self._rows.labels:
            self._rows = made

    def _made(self, decoded: Sequence[Codes], count: int) -> Rows:
        missing = np.zeros(count, bool)
        for codes in decoded:
            if not is_constant(codes) or (count and codes[0] == NO_TEXT):
                missing |= codes == NO_TEXT
        rest = iter(decoded)
        columns = [
            constant(self._words.code(field), count) if isinstance(field, str) else next(rest) for field in self._fields
        ]
        return Rows(LabelSets(self._words, columns, count), missing)

    @property
    def none(self) -> LabelSets:
        """Label sets with these labels, none of them."""
        return self._made([np.empty(0, np.int64)] * len(self._decoded), 0).labels

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Columns of the codes that are in use here."""
        return self._rows.labels.columns

    def forget_words(self) -> None:
        """Forget the codes that `words` has forgotten."""
        for field in self._decoded:
            field.forget_words()


def _replaced(column: Codes, was: RowIndex, new: RowIndex, codes: Codes) -> Codes:
    """The codes of rows that were at the places `was`; those at `new` have the `codes`."""
    if is_constant(column) and (not len(codes) or (is_constant(codes) and codes[0] == column[0])) and len(column):
        return constant(int(column[0]), len(was))
    found = column[was]
    found[new] = codes
    return found


def _plain_number(label: LabelField) -> np.dtype[Any] | None:
    """The type to read the field as where its label is the number in decimal and nothing else, None elsewhere."""
    if not isinstance(label.chain, Chain) or label.size not in (1, 2, 4, 8):
        return None
    names = [step.decoder.name for step in label.chain.steps]
    if names not in (["uint"], ["int"]):
        return None
    order = "=" if label.number is not None else ORDERS.get(label.chain.type.name, "=")
    return np.dtype(f"{order}{names[0][0]}{label.size}")


def _equal(one: Bytes, other: Bytes) -> bool:
    return np.array_equal(_numbers(one), _numbers(other))


def _all_equal(raw: Bytes) -> bool:
    numbers = _numbers(raw)
    return bool((numbers[-1] == numbers[0]).all() and (numbers == numbers[0]).all())


def _numbers(raw: Bytes) -> NDArray[Any]:
    """For comparisons: one a row, where it has the size of a number, and not one a byte."""
    return raw.view(f"u{raw.shape[1]}") if raw.shape[1] in (1, 2, 4, 8) else raw


def _runs(raw: Bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order of the rows in which equal ones are side by side, and where each run of equal ones starts. Rows that
    differ and have one hash can break a run in two."""
    count, size = raw.shape
    words = np.zeros((count, (size + 7) // 8 * 8), np.uint8)
    words[:, :size] = raw
    columns = words.view(np.uint64)
    order = np.argsort(columns[:, 0] if size <= 8 else hashes(list(columns.T), count))
    ordered = columns[order]
    new = np.ones(count, bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, np.flatnonzero(new)


def _cpu_text(possible: Sequence[int]) -> Callable[[bytes], str | None]:
    """Slot i of a per-CPU value belongs to the i-th possible CPU."""

    def text(raw: bytes) -> str:
        return str(possible[int(np.frombuffer(raw, np.uint32)[0])])

    return text
