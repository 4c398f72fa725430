"""The models of the configuration: every key of schema.yaml that is built, its type, default and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

ATTACH_KINDS = (
    *("kprobe", "kretprobe", "fentry", "fexit"),
    *("tracepoint", "raw_tracepoint", "tp_btf"),
    *("uprobe", "uretprobe", "usdt"),
    "perf_event",
)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Requires(Model):
    kernel: str | None = None  # ">=5.10"
    arch: list[str] = []  # as uname -m says it: x86_64, aarch64
    module: list[str] = []  # "xfs"
    member: list[str] = []  # "request_queue.disk"
    tracepoint_field: list[str] = []  # "tcp:tcp_send_reset.reason"


class AttachPoint(Model):
    kind: str  # one of ATTACH_KINDS
    targets: list[str]
    function: str
    optional: bool = False
    period: int | None = None  # perf_event: of its events, every so many run the program
    frequency: int | None = None  # perf_event: so many times a second


class Variant(Model):
    name: str = ""  # "" for a program with `attach:` and no `variants:`
    requires: Requires = Requires()
    attach: list[AttachPoint]


class MapOptions(Model):
    drain: bool = False
    ttl: float = 0.0  # seconds; 0 = never
    zeros: bool = True
    seed: Literal["listening_ports"] | None = None


class Decode(Model):
    """One step of a chain: `name` with its `argument` (None for a bare word), other keys in `options`."""

    name: str
    argument: Any = None
    options: dict[str, Any] = {}
    unknown: str | None = None  # keep | drop | TEXT; None = the decoder's own default

    # JSON has text keys only, and {map: {0: read}} must come back with the number 0.
    @field_serializer("argument", when_used="json")
    def _argument_to_json(self, argument: Any) -> Any:
        return {"pairs": [list(pair) for pair in argument.items()]} if isinstance(argument, dict) else argument

    @field_validator("argument", mode="before")
    @classmethod
    def _argument_from_json(cls, argument: Any) -> Any:
        if isinstance(argument, dict) and list(argument) == ["pairs"] and isinstance(argument["pairs"], list):
            return dict(argument["pairs"])
        return argument


class Label(Model):
    name: str
    field: str | None = None
    const: str | None = None
    decode: list[Decode] | None = None  # None = by the field's type


class Buckets(Model):
    type: Literal["exp2", "exp2zero", "linear", "fixed"] = "exp2"
    min: int | None = None
    max: int | None = None
    width: float | None = None
    bounds: list[float] | None = None
    slot_is_bound: bool = False


class Metric(Model):
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


class Program(Model):
    """One entry of `programs:`, bundled files merged in, `code` or the text of `source` in `text`."""

    name: str
    enabled: bool = True
    optional: bool = False
    defines: dict[str, int | str] = {}  # bool already 1 or 0
    requires: Requires = Requires()
    variants: list[Variant]
    maps: dict[str, MapOptions] = {}
    metrics: list[Metric]
    source: Path  # the file of the C text; for `code:` the YAML file
    line: int = 1  # where the C text starts in that file (for #line)
    indent: int = 0  # how many columns further right it stands there (`code:`)
    text: str


class Config(Model):
    programs: list[Program] = Field(default_factory=list)
    label_length: int = 128
    series: int = 100_000
    map_memory: int = 256 << 20  # bytes
