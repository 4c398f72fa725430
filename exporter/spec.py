"""The checked configuration: programs, metrics, labels, attach points, limits, web settings.

config/ and web/config/ make these models from YAML; every other folder reads them. They are frozen dataclasses and not
pydantic models, because the long-lived roles hold them and pydantic takes 12 MB. `PlainModel` turns them, those of
program.py and the messages of ipc/protocol.py into JSON values and back.
"""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

ATTACH_KINDS = (
    *("kprobe", "kretprobe", "fentry", "fexit"),
    *("tracepoint", "raw_tracepoint", "tp_btf"),
    *("uprobe", "uretprobe", "usdt"),
    "perf_event",
)


class PlainModel:
    """The base of dataclasses that become JSON values and come back equal.

    Fields are numbers, texts, paths, enumerations of texts, None, other such dataclasses, and lists, tuples and
    mappings of these.
    """

    __slots__ = ()

    @classmethod
    def model_validate(cls, document: Mapping[str, Any]) -> Self:
        """Return the model of JSON values, or of models within them.

        ValueError for a value that is not of the field's type, for an unknown key, and for one that is missing.
        """
        known = _types(cls)
        if unknown := sorted(document.keys() - known.keys()):
            raise ValueError(f"{cls.__name__}: no field {', '.join(unknown)}")
        values = {name: _value(known[name], value, f"{cls.__name__}.{name}") for name, value in document.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error

    def model_dump(self, mode: Literal["json"] = "json") -> dict[str, Any]:  # noqa: ARG002 (as pydantic's is called)
        """Return JSON values of which `model_validate` makes an equal model."""
        return {name: _plain(getattr(self, name)) for name in _types(type(self))}

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """Return the same model with other values in some fields."""
        return replace(self, **update)  # type: ignore[type-var]


class CountsModel(PlainModel):
    """The base of models whose numbers are sizes, counts and times: ValueError for a negative or infinite one."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise ValueError(f"{type(self).__name__}.{each.name}: {value!r} is out of range")


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
class Limits(CountsModel):
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


@dataclass(frozen=True, slots=True)
class TlsSettings(PlainModel):
    """tls_server_config of a web configuration file, with the contents of the files that it names.

    cert, key, client_ca  PEM texts; client_ca "" for no client certificates
    requires_client       a client without a certificate is refused
    allowed_sans          names of which a client's certificate must have one; () for any
    min_version, max_version  TLS12 or TLS13
    ciphers               of TLS 1.2, as OpenSSL names them; "" for its choice
    server_chooses        the server's first cipher is taken, and not the client's
    curve                 as OpenSSL names it; "" for its choice
    """

    cert: str
    key: str = field(repr=False)
    client_ca: str = ""
    requires_client: bool = False
    allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: str = ""
    server_chooses: bool = True
    curve: str = ""

    def __post_init__(self) -> None:
        if not {self.min_version, self.max_version} <= {"TLS12", "TLS13"}:
            raise ValueError(f"TlsSettings: no versions {self.min_version} and {self.max_version}")


@dataclass(frozen=True, slots=True)
class WebSettings(CountsModel):
    """The content of a web configuration file.

    tls       None for none
    headers   of every answer
    interval  seconds in which one more request is allowed; 0 for any number
    burst     requests that are allowed at once
    users     name -> bcrypt hash; empty for no passwords
    """

    tls: TlsSettings | None = None
    headers: tuple[tuple[str, str], ...] = ()
    interval: float = 0.0
    burst: int = 0
    users: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Sources(PlainModel):
    """The files that a configuration was read from; config/sources.py compares them with the disk.

    files   path -> SHA-256 of the content in hex, "" where it cannot be read; owner, group and mode. Every file that
            was read, C texts too, in the order of reading
    globs   pattern of `include:` -> what it found
    absent  files that would have been read if they had been there: programs/ beside the main file hides bundled ones
    """

    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    globs: dict[str, list[str]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


# How PlainModel reads and writes JSON values

_TYPES: dict[type, dict[str, Any]] = {}
_shown = reprlib.Repr()
_shown.maxlevel = 0  # nothing that is within a list or mapping: it may be a key or a password


def _types(model: Any) -> dict[str, Any]:
    """Return the fields of a dataclass and their types."""
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
    return str(value) if isinstance(value, Path | StrEnum) else value


def _value(wanted: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return _one_of([each for each in arguments if each is not type(None) or value is None], value, where)
    if origin is Literal:
        return _checked(isinstance(value, str) and value in arguments, value, where)
    if origin is list:
        _checked(isinstance(value, list | tuple), value, where)
        return [_value(arguments[0], inner, where) for inner in value]
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            _checked(isinstance(value, list | tuple), value, where)
            return tuple([_value(arguments[0], inner, where) for inner in value])
        _checked(isinstance(value, list | tuple) and len(value) == len(arguments), value, where)
        return tuple([_value(each, inner, where) for each, inner in zip(arguments, value, strict=True)])
    if origin in (dict, Mapping):
        _checked(isinstance(value, Mapping), value, where)
        return {_value(arguments[0], key, where): _value(arguments[1], inner, where) for key, inner in value.items()}
    if wanted is Any or wanted is type(None):
        return _checked(wanted is Any or value is None, value, where)
    if issubclass(wanted, PlainModel) and isinstance(value, Mapping):
        return wanted.model_validate(value)
    if issubclass(wanted, Path | StrEnum):
        _checked(isinstance(value, str | wanted), value, where)
        return wanted(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _checked(isinstance(value, wanted) and (wanted is bool) >= isinstance(value, bool), value, where)


def _one_of(choices: list[Any], value: Any, where: str) -> Any:
    for choice in choices[:-1]:
        try:
            return _value(choice, value, where)
        except ValueError:
            continue
    return _value(choices[-1], value, where)


def _checked(fits: bool, value: Any, where: str) -> Any:
    if not fits:
        raise ValueError(f"{where}: {_shown.repr(value)} is of another type")
    return value
