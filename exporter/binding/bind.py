"""A metric of the configuration and its map's layout -> offsets of its numbers, decoders of its labels, bucket bounds.

Pure functions without numpy. Offsets are in bytes from the start of the key or the value, numbers in host order except
of the kernel's __be and __le types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from exporter.binding.buckets import Buckets, slot_range, upper_bounds
from exporter.binding.paths import (
    ORDERS,
    FieldLayout,
    LayoutError,
    Number,
    leaves,
    listed,
    number,
    resolve,
    visible,
)
from exporter.decoders import Chain, ChainError, chain
from exporter.kernel import bpf, map_types
from exporter.program import Map, Type
from exporter.spec import BucketSpec, DecodeStep, LabelSpec, MapOptions, MetricSpec

_NO_BTF = " (a float or double in any map of the program takes away all its BTF: count in whole numbers)"
_INDEX = Type(kind="int", name="u32", size=4)  # the key of an array, whatever type the C text declares


class BindingError(Exception):
    """A metric does not fit its map. `messages`: one line for each mistake."""

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


@dataclass(frozen=True, slots=True)
class LabelField:
    """The source of a label's text: bytes of the key or value through `chain`, the CPU's number, or `const`. A
    bit-field is read as `number` and passed to the chain as the `size` bytes of its declared type."""

    name: str
    source: Literal["key", "value", "cpu", "const"]
    offset: int = 0
    size: int = 0
    chain: Chain | None = None
    const: str = ""
    number: Number | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """A metric bound to its map.

    labels       sorted by name
    value        None for a gauge that counts entries, and for a histogram whose slots are in the value
    approximate  the map evicts entries (LRU)
    drained      entries are read and deleted, and their counts are added to totals by label set
    """

    metric: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    map: str
    percpu: bool
    labels: tuple[LabelField, ...]
    value: Number | None
    scale: float
    reduce: Literal["sum", "max", "min"]
    max_series: int
    buckets: Buckets | None = None
    approximate: bool = False
    drained: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def splits_cpus(self) -> bool:
        """Return True if each CPU has its own series."""
        return any(label.source == "cpu" for label in self.labels)


def bind_all(
    metrics: Sequence[MetricSpec], maps: Sequence[Map], options: Mapping[str, MapOptions] | None = None
) -> tuple[Binding, ...]:
    """Bind the enabled metrics of one program and check the options of its maps. BindingError has one message for each
    metric that cannot be bound and each option that its map cannot have."""
    by_name = {m.name: m for m in maps}
    bindings: list[Binding] = []
    drained = {name for name, chosen in (options or {}).items() if chosen.drain}
    messages = [text for name, chosen in (options or {}).items() if (text := _unfit(name, chosen, by_name))]
    for metric in metrics:
        if not metric.enabled:
            continue
        try:
            if metric.map not in by_name:
                raise BindingError(f'metric {metric.name}: no map "{metric.map}" (the C text has: {listed(by_name)})')
            binding = bind(metric, by_name[metric.map])
            if metric.map in drained:
                binding = _drained(binding)
            _check_stacks(binding, by_name)
            bindings.append(binding)
        except BindingError as error:
            messages.extend(error.messages)
    messages.extend(_disagreements(bindings))
    if messages:
        raise BindingError(*messages)
    return tuple(bindings)


def approximations(metrics: Sequence[MetricSpec], maps: Sequence[Map]) -> str:
    """Return which metrics are not exact, and what would be; "" if all are exact."""
    forgetful = {m.name for m in maps if m.type in map_types.LRU_HASHES}
    found = [
        f"{metric.name} (LRU map {metric.map})" for metric in metrics if metric.enabled and metric.map in forgetful
    ]
    if not found:
        return ""
    return f"approximate, as entries are forgotten to make room: {', '.join(found)}; DRAINED_HASH() counts exactly"


def bind(metric: MetricSpec, map: Map) -> Binding:  # noqa: A002 (the kernel's word)
    """Bind one metric to the layout of its map. BindingError has the mistake and what exists instead."""
    try:
        return _Binder(metric, map).bind()
    except LayoutError as mistake:
        raise BindingError(*(f"metric {metric.name}: {text}" for text in mistake.args)) from None


class _Binder:
    def __init__(self, metric: MetricSpec, map: Map) -> None:  # noqa: A002
        self.metric = metric
        self.map = map
        if map.type not in map_types.READABLE:
            raise LayoutError(
                f'map "{map.name}" has type {map.type}: only hash, array and LPM trie maps have entries to read'
            )
        self.array = map.type in map_types.ARRAYS
        self.percpu = map.type in map_types.PERCPU
        self.key = _INDEX if self.array else map.key

    def bind(self) -> Binding:
        m = self.metric
        if m.scale <= 0 or not math.isfinite(m.scale):
            raise LayoutError(f"scale {m.scale}: not a positive number")
        if m.reduce != "sum" and m.type != "gauge":
            raise LayoutError(f"reduce {m.reduce}: a {m.type} can only be summed")
        if m.type == "histogram":
            value, buckets, slot_path = self.histogram()
        else:
            value, buckets, slot_path = self.value_number(m.value), None, None
        labels = self.labels(slot_path)
        names = [label.name for label in labels]
        for name in names:
            if names.count(name) > 1:
                raise LayoutError(f"label {name}: there are two of this name (name one of them otherwise)")
        if buckets is not None and "le" in names:
            raise LayoutError("label le: the name that the buckets of a histogram use")
        return Binding(
            metric=m.name,
            type=m.type,
            help=m.help,
            map=self.map.name,
            percpu=self.percpu,
            labels=tuple(sorted(labels, key=lambda label: label.name)),
            value=value,
            scale=m.scale,
            reduce=m.reduce,
            max_series=m.max_series,
            buckets=buckets,
            approximate=self.map.type in map_types.LRU_HASHES,
        )

    # --- types ---

    def key_type(self) -> Type:
        if self.key is None:
            raise LayoutError(f'map "{self.map.name}": its BTF does not describe the key{_NO_BTF}')
        return self.key

    def value_type(self) -> Type:
        if self.map.value is None:
            raise LayoutError(f'map "{self.map.name}": its BTF does not describe the value{_NO_BTF}')
        return self.map.value

    # --- numbers ---

    def value_number(self, value: str | int | None) -> Number | None:
        """Return the number that `value:` names; None for a gauge that counts entries."""
        if isinstance(value, int):
            if value != 1 or self.metric.type != "gauge":
                raise LayoutError(f"value {value}: only a gauge can have a number, 1, to count entries")
            return None
        path = value if value is not None else "value"
        return number(self.in_value(path, "value"), f"value {path}" if value is not None else "value")

    def in_value(self, path: str, what: str) -> FieldLayout:
        root = self.value_type()
        try:
            return resolve(root, path, "value")
        except LayoutError as mistake:
            raise LayoutError(f"{what}: {mistake}") from None

    # --- histograms ---

    def histogram(self) -> tuple[Number | None, Buckets, str | None]:
        m = self.metric
        if m.slot is not None:
            if m.slots is not None:
                raise LayoutError("slot and slots: the slots are in the key or in the value, not both")
            return self.slot_in_key(m.slot)
        if m.sum_slot is not None:
            raise LayoutError("sum_slot: only with slot; use sum for a member of the value")
        return None, self.slots_in_value(), None

    def slots_in_value(self) -> Buckets:
        m, root = self.metric, self.value_type()
        path = m.slots if m.slots is not None else ("value" if root.kind == "array" else "slots")
        field = self.in_value(path, "slots")
        array = field.type
        if array.kind != "array" or array.element is None:
            raise LayoutError(f"slots {path}: {array.spelling} is no array of numbers")
        if array.count < 2:
            raise LayoutError(f"slots {path}: an array of {array.count} has no room for a bucket and the overflow")
        first = number(FieldLayout(array.element, field.offset), f"slots {path}")
        total: Number | None = None
        if m.sum is not None or (root.kind == "struct" and any(x.name == "sum" for x in visible(root))):
            sum_path = m.sum if m.sum is not None else "sum"
            total = number(self.in_value(sum_path, "sum"), f"sum {sum_path}")
        given = m.buckets if m.buckets is not None else BucketSpec()
        if given.slot_is_bound:
            raise LayoutError("buckets: slot_is_bound is for a slot in the key")
        low, high = slot_range(given, array.count - 2)
        if high > array.count - 2:
            raise LayoutError(
                f"buckets: max {high} is too high for an array of {array.count} (the last element counts what is above "
                f"all bounds; max is at most {array.count - 2})"
            )
        bounds = upper_bounds(given, low, high, m.scale)
        return Buckets(bounds=bounds, first=low, slots=first, count=array.count, sum=total)

    def slot_in_key(self, path: str) -> tuple[Number | None, Buckets, str]:
        m = self.metric
        if m.buckets is None:
            raise LayoutError("buckets: missing (the slot is in the key, so nothing says how many there are)")
        if m.sum is not None:
            raise LayoutError("sum: only with slots in the value; use sum_slot")
        try:
            slot = number(resolve(self.key_type(), path, "key"), f"slot {path}")
        except LayoutError as mistake:
            text = str(mistake)
            raise LayoutError(text if text.startswith("slot ") else f"slot: {text}") from None
        value = self.value_number(m.value)
        low, high = slot_range(m.buckets, None)
        bounds = upper_bounds(m.buckets, low, high, m.scale)
        slot_bounds: tuple[int, ...] = ()
        if m.buckets.slot_is_bound:
            if m.buckets.type != "fixed":
                raise LayoutError("buckets: slot_is_bound is for type fixed")
            given = (m.buckets.bounds or [])[low : high + 1]
            if any(bound != int(bound) for bound in given):
                raise LayoutError("buckets: slot_is_bound needs whole bounds (a slot is a whole number)")
            slot_bounds = tuple(int(bound) for bound in given)
        if m.sum_slot is not None and not slot_bounds and low <= m.sum_slot <= high:
            raise LayoutError(f"sum_slot {m.sum_slot}: is also a bucket (buckets are slots {low} to {high})")
        return (
            value,
            Buckets(bounds=bounds, first=low, slot=slot, slot_bounds=slot_bounds, sum_slot=m.sum_slot),
            path,
        )

    # --- labels ---

    def labels(self, slot_path: str | None) -> list[LabelField]:
        if self.metric.labels is not None:
            labels: list[LabelField] = []
            mistakes: list[str] = []
            for label in self.metric.labels:
                try:
                    labels.append(self.label(label))
                except LayoutError as mistake:
                    mistakes.extend(mistake.args)
            if mistakes:
                raise LayoutError(*mistakes)
            return labels
        if self.array and self.map.max_entries == 1:
            return []
        if self.map.type == bpf.BPF_MAP_TYPE_LPM_TRIE:
            raise LayoutError(
                f"labels: the key of map {self.map.name} is a prefix "
                "(name it: labels: [{name: prefix, field: key, decode: [cidr]}], or say labels: [])"
            )
        key = self.key_type()
        if slot_path is not None and key.kind != "struct":
            return []  # the slot is all of the key
        if key.kind != "struct":
            raise LayoutError(
                f"labels: the key of map {self.map.name} is {key.spelling} without field names "
                "(name it: labels: [{name: index, field: key}], or say labels: [])"
            )
        slot = None if slot_path is None else resolve(key, slot_path, "key")
        return [self.field_label("_".join(path), None, field) for path, field in leaves(key, (), 0) if field != slot]

    def label(self, label: LabelSpec) -> LabelField:
        if label.const is not None:
            return LabelField(name=label.name, source="const", const=label.const)
        path = label.field
        if path is None:
            raise LayoutError(f"label {label.name}: needs field or const")
        if path == "cpu":
            if not self.percpu:
                raise LayoutError(
                    f"label {label.name}: map {self.map.name} is not per-CPU (a member of the key named cpu is key.cpu)"
                )
            return LabelField(name=label.name, source="cpu")
        try:
            if path == "value" or path.startswith(("value.", "value[")):
                field = resolve(self.value_type(), path, "value")
                if self.percpu and not self.cpu_label():
                    raise LayoutError(f"field {path}: each CPU has its own value (add a label with field: cpu)")
                return self.field_label(label.name, label.decode, field, "value")
            field = resolve(self.key_type(), path, "key")
        except LayoutError as mistake:
            raise LayoutError(f"label {label.name}: {mistake}") from None
        return self.field_label(label.name, label.decode, field)

    def cpu_label(self) -> bool:
        return any(label.field == "cpu" for label in self.metric.labels or [])

    def field_label(
        self,
        name: str,
        steps: list[DecodeStep] | None,
        field: FieldLayout,
        source: Literal["key", "value"] = "key",
    ) -> LabelField:
        bits = number(field, f"label {name}") if field.bits else None
        # A bit-field that is read as a number is in host order, whatever its type is called.
        found = replace(field.type, name="") if bits and field.type.name in ORDERS else field.type
        try:
            decode = chain(found, steps)
        except ChainError as error:
            raise LayoutError(f"label {name}: {error}") from None
        return LabelField(name, source, field.offset, found.size, decode, number=bits)


def _unfit(name: str, options: MapOptions, maps: Mapping[str, Map]) -> str:
    """Return why a map cannot have its options in `maps:`; "" if it can."""
    map_ = maps.get(name)
    if map_ is None:
        return f"maps {name}: no such map (the C text has: {listed(maps)})"
    if options.drain and map_.drain_index is None:
        return f"maps {name}: drain: {_undrainable(map_)}"
    if not options.zeros and map_.type not in map_types.ARRAYS:
        return f"maps {name}: zeros: only an array has entries that nobody made (leave zeros out)"
    if options.ttl and map_.type in map_types.ARRAYS:
        return f"maps {name}: ttl: entries of an array cannot be deleted (use a hash in the C text, or leave ttl out)"
    if options.ttl and map_.type not in map_types.READABLE:
        return f"maps {name}: ttl: map type {map_.type} has no entries to delete (leave ttl out)"
    return ""


def _drained(binding: Binding) -> Binding:
    if binding.type == "gauge":
        raise BindingError(
            f"metric {binding.metric}: map {binding.map} is drained, and a gauge shows what is there"
            " (make it a counter, or leave drain out)"
        )
    return replace(binding, drained=True)


def _undrainable(map_: Map) -> str:
    """Return why a map that the C text does not declare as a pair cannot be drained, and what would be right."""
    if map_.type in map_types.LRU_HASHES:
        return "an LRU map forgets entries before they are read (declare it with DRAINED_HASH() in the C text)"
    if map_.type not in map_types.PLAIN_HASHES:
        return f"map type {map_.type} cannot be read and deleted without loss (use DRAINED_HASH() in the C text)"
    return (
        f"the C text has one map of this name, and draining takes two (declare it with DRAINED_HASH({map_.name}, ...) "
        f"and choose by ODD({map_.name}))"
    )


def _check_stacks(binding: Binding, maps: Mapping[str, Map]) -> None:
    """BindingError unless `{kstack: MAP}` names a map of stack traces of the kernel."""
    for label in binding.labels:
        for name in label.chain.stack_maps if label.chain is not None else ():
            where = f"metric {binding.metric}: label {label.name}: kstack {name}:"
            if name not in maps:
                raise BindingError(f"{where} no such map (the C text has: {listed(maps)})")
            if maps[name].type != bpf.BPF_MAP_TYPE_STACK_TRACE:
                raise BindingError(f"{where} map type {maps[name].type} has no stacks (BPF_STACK_TRACE makes them)")
            if maps[name].flags & bpf.BPF_F_STACK_BUILD_ID:
                raise BindingError(f"{where} its stacks are build ids of user space (leave BPF_F_STACK_BUILD_ID out)")


def _disagreements(bindings: list[Binding]) -> list[str]:
    """Return the differences between metrics of one name, which are one family."""
    messages = []
    first: dict[str, Binding] = {}
    for binding in bindings:
        other = first.setdefault(binding.metric, binding)
        if other is binding:
            continue
        for what, ours, theirs in (
            ("type", binding.type, other.type),
            ("help", binding.help, other.help),
            ("scale", binding.scale, other.scale),
            ("reduce", binding.reduce, other.reduce),
            ("labels", ", ".join(binding.label_names), ", ".join(other.label_names)),
            (
                "bounds",
                binding.buckets.bounds if binding.buckets else (),
                other.buckets.bounds if other.buckets else (),
            ),
        ):
            if ours != theirs:
                messages.append(
                    f"metric {binding.metric}: {what} of its entries for maps {other.map} and {binding.map} differ "
                    f"({theirs} and {ours})"
                )
    return messages
