"""The checked configuration: programs, metrics, labels, attach points, options of maps, limits.

config/ makes these models from YAML; every other folder reads them. They are frozen dataclasses and not pydantic
models, because the long-lived roles import them and pydantic takes 12 MB. `PlainModel` converts them to JSON values and
back for messages between processes.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

ATTACH_KINDS = (
    *("kprobe", "kretprobe", "fentry", "fexit"),
    *("tracepoint", "raw_tracepoint", "tp_btf"),
    *("uprobe", "uretprobe", "usdt"),
    "perf_event",
)


class PlainModel:
    """The base of dataclasses whose fields are numbers, texts, paths, None, other such dataclasses, and lists and
    mappings of these."""

    __slots__ = ()

    @classmethod
    def model_validate(cls, document: Mapping[str, Any]) -> Self:
        """The model of JSON values, or of models within them. ValueError for what is not of the field's type, for a key
        that there is not, and for one that is missing."""
        known = _types(cls)
        if unknown := sorted(document.keys() - known.keys()):
            raise ValueError(f"{cls.__name__}: no field {', '.join(unknown)}")
        values = {name: _value(known[name], value, f"{cls.__name__}.{name}") for name, value in document.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error

    def model_dump(self, mode: Literal["json"] = "json") -> dict[str, Any]:  # noqa: ARG002 (as pydantic's is called)
        """JSON values of which `model_validate` makes an equal model."""
        return {name: _plain(getattr(self, name)) for name in _types(type(self))}

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same with other values in some fields."""
        return replace(self, **update)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirements(PlainModel):
    kernel: str | None = None  # ">=5.10"
    arch: list[str] = field(default_factory=list)  # as in uname -m: x86_64, aarch64
    module: list[str] = field(default_factory=list)  # "xfs"
    member: list[str] = field(default_factory=list)  # "request_queue.disk"
    tracepoint_field: list[str] = field(default_factory=list)  # "tcp:tcp_send_reset.reason"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachSpec(PlainModel):
    kind: str  # one of ATTACH_KINDS
    targets: list[str]
    function: str
    optional: bool = False
    period: int | None = None  # perf_event: the program runs once in so many events
    frequency: int | None = None  # perf_event: the program runs so many times a second


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantSpec(PlainModel):
    name: str = ""  # "" for a program with `attach:` and no `variants:`
    requires: Requirements = Requirements()
    attach: list[AttachSpec]


@dataclass(frozen=True, kw_only=True, slots=True)
class MapOptions(PlainModel):
    drain: bool = False
    ttl: float = 0.0  # seconds; 0: never
    zeros: bool = True
    seed: Literal["listening_ports"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeStep(PlainModel):
    """One step of a chain: decoder `name`, its `argument` (None without one), and other keys in `options`."""

    name: str
    argument: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    unknown: str | None = None  # keep | drop | TEXT; None = the decoder's own default

    # JSON has only text keys, and {map: {0: read}} has the number 0.
    def model_dump(self, mode: Literal["json"] = "json") -> dict[str, Any]:
        document = super(DecodeStep, self).model_dump(mode)  # slots make another class than __class__ here
        if isinstance(self.argument, dict):
            document["argument"] = {"pairs": [list(pair) for pair in self.argument.items()]}
        return document

    @classmethod
    def model_validate(cls, document: Mapping[str, Any]) -> Self:
        argument = document.get("argument")
        if isinstance(argument, dict) and list(argument) == ["pairs"] and isinstance(argument["pairs"], list):
            document = {**document, "argument": dict(argument["pairs"])}
        return super(DecodeStep, cls).model_validate(document)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSpec(PlainModel):
    name: str
    field: str | None = None
    const: str | None = None
    decode: list[DecodeStep] | None = None  # None: by the field's type


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketSpec(PlainModel):
    type: Literal["exp2", "exp2zero", "linear", "fixed"] = "exp2"
    min: int | None = None
    max: int | None = None
    width: float | None = None
    bounds: list[float] | None = None
    slot_is_bound: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec(PlainModel):
    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    map: str
    value: str | int | None = None  # PATH; None: the value itself; 1 (gauge): number of entries
    scale: float = 1.0  # factor; config/ has replaced a unit by it
    reduce: Literal["sum", "max", "min"] = "sum"
    max_series: int = 1000
    enabled: bool = True
    labels: list[LabelSpec] | None = None  # None: every key field
    slots: str | None = None
    sum: str | None = None
    slot: str | None = None
    sum_slot: int | None = None
    buckets: BucketSpec | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramSpec(PlainModel):
    """One item of `programs:` with overrides applied; `text` is `code` or the content of `source`."""

    name: str
    enabled: bool = True
    optional: bool = False
    lifetime: float = 0.0  # seconds until it is detached; 0: never
    budget: float | None = None  # CPU seconds per second over all CPUs; None: unlimited
    defines: dict[str, int | str] = field(default_factory=dict)  # bool as 1 or 0
    requires: Requirements = Requirements()
    variants: list[VariantSpec]
    maps: dict[str, MapOptions] = field(default_factory=dict)
    metrics: list[MetricSpec]
    source: Path  # the file with the C text; for `code:` the YAML file
    line: int = 1  # first line of the C text in that file (for #line)
    indent: int = 0  # indentation of the C text in that file (`code:`)
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits(PlainModel):
    """Limits of the daemon as a whole.

    series        label sets of all metrics together
    map_memory    bytes of kernel memory that the maps of one program may take
    label_length  bytes of a label value
    """

    series: int = 100_000
    map_memory: int = 256 << 20
    label_length: int = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(PlainModel):
    programs: list[ProgramSpec] = field(default_factory=list)
    limits: Limits = Limits()


# How PlainModel reads and writes JSON values

_TYPES: dict[type, dict[str, Any]] = {}


def _types(model: Any) -> dict[str, Any]:
    """Fields of a dataclass and their types."""
    if model not in _TYPES:
        hints = get_type_hints(model)
        _TYPES[model] = {each.name: hints[each.name] for each in fields(model)}
    return _TYPES[model]


def _plain(value: Any) -> Any:
    if isinstance(value, PlainModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _value(wanted: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is Literal:
        return _checked(value in arguments, value, where)
    if origin is list:
        _checked(isinstance(value, list | tuple), value, where)
        return [_value(arguments[0], inner, where) for inner in value]
    if origin is dict:
        _checked(isinstance(value, Mapping), value, where)
        return {key: _value(arguments[1], inner, where) for key, inner in value.items()}
    if wanted is Any or wanted is None or wanted is type(None):
        return _checked(wanted is Any or value is None, value, where)
    if wanted is Path:
        _checked(isinstance(value, str | Path), value, where)
        return Path(value)
    if issubclass(wanted, PlainModel) and isinstance(value, Mapping):
        return wanted.model_validate(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _checked(isinstance(value, wanted) and (wanted is bool) >= isinstance(value, bool), value, where)


def _one_of(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    for choice in choices:
        try:
            return _value(choice, value, where)
        except ValueError:
            continue
    return _checked(False, value, where)


def _checked(fits: bool, value: Any, where: str) -> Any:
    if not fits:
        raise ValueError(f"{where}: {value!r} is of another type")
    return value
