"""The models of the configuration: every key of schema.yaml that is built, its type, default and meaning.

Plain data, already checked: what the user wrote is checked as a document.py. Long-lived roles hold these, and so not
pydantic, which is 12 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from exporter.config.plain_model import PlainModel

ATTACH_KINDS = (
    *("kprobe", "kretprobe", "fentry", "fexit"),
    *("tracepoint", "raw_tracepoint", "tp_btf"),
    *("uprobe", "uretprobe", "usdt"),
    "perf_event",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requires(PlainModel):
    kernel: str | None = None  # ">=5.10"
    arch: list[str] = field(default_factory=list)  # as uname -m says it: x86_64, aarch64
    module: list[str] = field(default_factory=list)  # "xfs"
    member: list[str] = field(default_factory=list)  # "request_queue.disk"
    tracepoint_field: list[str] = field(default_factory=list)  # "tcp:tcp_send_reset.reason"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachPoint(PlainModel):
    kind: str  # one of ATTACH_KINDS
    targets: list[str]
    function: str
    optional: bool = False
    period: int | None = None  # perf_event: of its events, every so many run the program
    frequency: int | None = None  # perf_event: so many times a second


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant(PlainModel):
    name: str = ""  # "" for a program with `attach:` and no `variants:`
    requires: Requires = Requires()
    attach: list[AttachPoint]


@dataclass(frozen=True, kw_only=True, slots=True)
class MapOptions(PlainModel):
    drain: bool = False
    ttl: float = 0.0  # seconds; 0 = never
    zeros: bool = True
    seed: Literal["listening_ports"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decode(PlainModel):
    """One step of a chain: `name` with its `argument` (None for a bare word), other keys in `options`."""

    name: str
    argument: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    unknown: str | None = None  # keep | drop | TEXT; None = the decoder's own default

    # JSON has text keys only, and {map: {0: read}} must come back with the number 0.
    def model_dump(self, mode: Literal["json"] = "json") -> dict[str, Any]:
        document = super(Decode, self).model_dump(mode)  # slots make another class than __class__ here
        if isinstance(self.argument, dict):
            document["argument"] = {"pairs": [list(pair) for pair in self.argument.items()]}
        return document

    @classmethod
    def model_validate(cls, document: Mapping[str, Any]) -> Self:
        argument = document.get("argument")
        if isinstance(argument, dict) and list(argument) == ["pairs"] and isinstance(argument["pairs"], list):
            document = {**document, "argument": dict(argument["pairs"])}
        return super(Decode, cls).model_validate(document)


@dataclass(frozen=True, kw_only=True, slots=True)
class Label(PlainModel):
    name: str
    field: str | None = None
    const: str | None = None
    decode: list[Decode] | None = None  # None = by the field's type


@dataclass(frozen=True, kw_only=True, slots=True)
class Buckets(PlainModel):
    type: Literal["exp2", "exp2zero", "linear", "fixed"] = "exp2"
    min: int | None = None
    max: int | None = None
    width: float | None = None
    bounds: list[float] | None = None
    slot_is_bound: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric(PlainModel):
    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    map: str
    value: str | int | None = None  # PATH; None = the value itself; 1 (gauge) = count entries
    scale: float = 1.0  # factor; a unit in the YAML is already turned into it
    reduce: Literal["sum", "max", "min"] = "sum"
    max_series: int = 1000
    enabled: bool = True
    labels: list[Label] | None = None  # None = every key field
    slots: str | None = None
    sum: str | None = None
    slot: str | None = None
    sum_slot: int | None = None
    buckets: Buckets | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Program(PlainModel):
    """One entry of `programs:`, bundled files merged in, `code` or the text of `source` in `text`."""

    name: str
    enabled: bool = True
    optional: bool = False
    lifetime: float = 0.0  # seconds after which it is detached; 0 = for ever
    budget: float | None = None  # CPU seconds per second over all CPUs; None = whatever it takes
    defines: dict[str, int | str] = field(default_factory=dict)  # bool already 1 or 0
    requires: Requires = Requires()
    variants: list[Variant]
    maps: dict[str, MapOptions] = field(default_factory=dict)
    metrics: list[Metric]
    source: Path  # the file of the C text; for `code:` the YAML file
    line: int = 1  # where the C text starts in that file (for #line)
    indent: int = 0  # how many columns further right it stands there (`code:`)
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(PlainModel):
    programs: list[Program] = field(default_factory=list)
    label_length: int = 128
    series: int = 100_000
    map_memory: int = 256 << 20  # bytes
