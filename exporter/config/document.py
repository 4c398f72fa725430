"""The keys of the YAML files as people write them: pydantic checks them one by one, the JSON Schema is made of them.

A field's description is the reference; docs/configuration.md tells more. `not_built` names the keys of the agreed
format that this version does not build, each with what to do instead.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from exporter.config import fields, model

NOT_BUILT_KINDS = ("xdp", "tc_ingress", "tc_egress")
_WORKING_KINDS = "kinds that work: " + ", ".join(model.ATTACH_KINDS)


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    not_built: ClassVar[dict[str, str]] = {}


class Limits(Document):
    series: Annotated[int, Field(ge=1)] = 100_000
    """label sets of all metrics together; beyond them new ones fold as with max_series"""
    map_memory: fields.Size = Field(default="256MiB", validate_default=True)
    """bytes, or 64MiB: kernel memory of one program's maps on this host; a program that needs more is not loaded"""
    label_length: Annotated[int, Field(ge=8)] = 128
    """bytes; longer label values are cut at a character"""


class Requires(Document):
    kernel: fields.KernelRange | None = None
    """range of kernel versions, like ">=5.10" or ">=5.10, <6.12\""""
    arch: fields.Machines = []
    """x86_64 or arm64, or a list of both"""
    module: fields.Modules = []
    """kernel module that is loaded or built in, or a list of them"""
    member: fields.StructMembers = []
    """STRUCT.MEMBER that this kernel's BTF has, or a list of them"""
    tracepoint_field: fields.TracepointFields = []
    """CATEGORY:EVENT.FIELD that this kernel's tracepoint has, or a list of them"""


class AttachPoint(Document):
    """Exactly one KIND: TARGET."""

    not_built: ClassVar[dict[str, str]] = dict.fromkeys(NOT_BUILT_KINDS, _WORKING_KINDS)
    kprobe: fields.Targets | None = None
    """FUNC or MODULE:FUNC, at entry; a list is several points, * and ? are globs of at most 200 matches"""
    kretprobe: fields.Targets | None = None
    """FUNC or MODULE:FUNC, at return"""
    fentry: fields.Targets | None = None
    """FUNC or MODULE:FUNC, at entry, by BTF"""
    fexit: fields.Targets | None = None
    """FUNC or MODULE:FUNC, at return with the arguments, by BTF"""
    tracepoint: fields.Targets | None = None
    """CATEGORY:EVENT"""
    raw_tracepoint: fields.Targets | None = None
    """EVENT"""
    tp_btf: fields.Targets | None = None
    """EVENT, with arguments typed by BTF"""
    uprobe: fields.Targets | None = None
    """FILE:SYMBOL or FILE:0xOFFSET, at entry; FILE: absolute path, or the name of a library or program"""
    uretprobe: fields.Targets | None = None
    """FILE:SYMBOL, at return"""
    usdt: fields.Targets | None = None
    """FILE:PROVIDER:PROBE"""
    perf_event: fields.Targets | None = None
    """event as `perf list` prints it, or TYPE:CONFIG in numbers, sampled on every CPU"""
    period: Annotated[int, Field(ge=1, le=(1 << 63) - 1)] | None = None
    """perf_event: run once in so many events"""
    frequency: Annotated[int, Field(ge=1)] | None = None
    """perf_event: run so many times a second"""
    function: fields.CName | None = None
    """the C function; left out: the name that bcc's macro for this kind gives (kprobe__FUNC, ...)"""
    optional: bool = False
    """true: may be absent on this kernel; shown as attached 0"""


class Variant(Document):
    name: fields.VariantName
    """the C text sees -DVARIANT_NAME (upper case, other characters to _)"""
    requires: Requires = Requires()
    """all must hold, else the next variant is tried"""
    attach: list[AttachPoint]
    """all must attach, except those marked optional"""


class MapOptions(Document):
    not_built: ClassVar[dict[str, str]] = {
        "pinned": "a program of your own has to fill the map",
        "key": "it belongs to pinned",
        "value": "it belongs to pinned",
        "fill": "filter in the C text, by defines",
    }
    drain: bool = False
    """true: entries are read and deleted between scrapes, so that a small map carries any number of keys; counters and
    histograms only, of a map that the C text declares with DRAINED_HASH()"""
    ttl: fields.Duration = Field(default="0s", validate_default=True)
    """entries that did not change for so long, like 10m, are deleted and their series end; 0s: never"""
    zeros: bool = True
    """false: entries of an array that have always been zero are left out"""
    seed: Literal["listening_ports"] | None = None
    """fill the map once before attaching: listening_ports (u16 port -> u32 count, every network namespace)"""


class Label(Document):
    name: fields.LabelName | None = None
    """left out: the last part of field"""
    field: fields.FieldPath | None = None
    """PATH in the key; `key` = a key that is no struct; value.a = in the value; cpu = split a per-CPU map"""
    const: str | None = None
    """the same text for all series of this metric entry, instead of field"""
    decode: list[fields.Decode] | None = None
    """chain of decoders; left out: by the field's type"""


class Buckets(Document):
    type: Literal["exp2", "exp2zero", "linear", "fixed"] = "exp2"
    """slot i counts le = 2^i (exp2), 2^(i-1) and slot 0 zeros (exp2zero), i * width (linear), bounds[i] (fixed)"""
    min: Annotated[int, Field(ge=0)] | None = None
    """slot of the first bound; lower slots are counted in it"""
    max: Annotated[int, Field(ge=0)] | None = None
    """slot of the last bound; higher slots are counted in +Inf"""
    width: fields.Number | None = None
    """of a linear bucket, before scale"""
    bounds: list[fields.Number] | None = None
    """of fixed buckets, before scale, rising"""
    slot_is_bound: bool = False
    """fixed only: the slot holds the bound itself instead of its index"""


class Metric(Document):
    not_built: ClassVar[dict[str, str]] = {
        "events": "count into a map, and name it by `map`",
        "record": "it belongs to events",
    }
    name: fields.MetricName
    """in full, no prefix is added"""
    type: Literal["counter", "gauge", "histogram"]
    """what Prometheus is told, and how the map is read"""
    help: fields.OneLine = ""
    """one sentence, shown by Prometheus"""
    map: fields.CName
    """the map's name in the C text"""
    value: fields.Value | None = None
    """PATH in the value (left out: the value itself, a number); gauges only: 1 = how many entries there are"""
    scale: fields.Scale = 1.0
    """factor, or a unit: ns us ms -> seconds, kib pages -> bytes, jiffies -> seconds, percent -> ratio"""
    reduce: Literal["sum", "max", "min"] = "sum"
    """over CPUs, over fields that are no label, over equal label sets; counters and histograms: sum only"""
    max_series: Annotated[int, Field(ge=1)] = 1000
    """label sets shown; later ones go into one with every label "other\""""
    enabled: bool = True
    """false drops this metric"""
    labels: list[Label] | None = None
    """left out: every field of the key; []: none"""
    slots: fields.FieldPath | None = None
    """histogram: PATH of the array of slots in the value (slots); its last element is above all bounds"""
    sum: fields.FieldPath | None = None
    """histogram: PATH of the exact sum in the value (sum, if there is one)"""
    slot: fields.FieldPath | None = None
    """histogram: PATH of the slot in the key (`key` if it is all of it), instead of slots"""
    sum_slot: Annotated[int, Field(ge=0)] | None = None
    """histogram with slot: this slot holds the sum"""
    buckets: Buckets | None = None
    """histogram: the bounds (exp2 over the whole array); required with slot"""


_PROGRAM_NOT_BUILT = {
    "cflags": "use defines",
}


class Program(Document):
    """A program with its own C text."""

    not_built: ClassVar[dict[str, str]] = {
        **_PROGRAM_NOT_BUILT,
        "object": "give the C text by source or code",
        "kaddrs": "pass the address by defines",
    }
    name: fields.ProgramName
    """the `program` label everywhere"""
    enabled: bool = True
    """false: not loaded, state disabled"""
    optional: bool = False
    """true: with nothing to attach to the state is skipped, not failed"""
    budget: fields.Budget | None = None
    """CPU seconds per second over all CPUs; in three windows above it: detached, state over_budget"""
    lifetime: fields.Duration = Field(default="0s", validate_default=True)
    """detached so long after it was loaded, like 15m, state ended; 0s: runs for ever"""
    source: fields.OneLine | None = None
    """file of the C text, in bcc's dialect"""
    code: str | None = None
    """the C text itself, as a block: `code: |`"""
    defines: dict[fields.CName, fields.Define] = {}
    """become -DNAME=VALUE (true: 1, false: 0)"""
    requires: Requires = Requires()
    """all must hold, else the state is skipped"""
    attach: list[AttachPoint] | None = None
    """attach points, where there is one way"""
    variants: list[Variant] | None = None
    """several ways that count the same thing; the first that this kernel accepts is used"""
    maps: dict[fields.CName, MapOptions] = {}
    """options of maps, by their names in the C text"""
    metrics: list[Metric]
    """what the maps become; the same name again adds its entries"""


class MetricOverride(Document):
    """What may be changed of a bundled program's metric."""

    name: fields.MetricName
    """a metric of the bundled program"""
    enabled: bool | None = None
    """false drops this metric"""
    max_series: Annotated[int, Field(ge=1)] | None = None
    """label sets shown; later ones go into one with every label "other\""""


class Use(Document):
    """A bundled program, or one in programs/ beside the main file."""

    not_built: ClassVar[dict[str, str]] = _PROGRAM_NOT_BUILT
    use: fields.ProgramName
    """name of the program"""
    name: fields.ProgramName | None = None
    """the `program` label everywhere (the name in use)"""
    enabled: bool | None = None
    """false: not loaded, state disabled"""
    optional: bool | None = None
    """true: with nothing to attach to the state is skipped, not failed"""
    budget: fields.Budget | None = None
    """CPU seconds per second over all CPUs; in three windows above it: detached, state over_budget"""
    lifetime: fields.Duration | None = None
    """detached so long after it was loaded, like 15m, state ended; 0s: runs for ever"""
    defines: dict[fields.CName, fields.Define] = {}
    """merged key by key; only keys that the bundled entry shows"""
    metrics: list[MetricOverride] = []
    """by name: enabled, max_series"""


class IncludedFile(Document):
    """A file that `include:` names."""

    programs: list[Use | Program] = []
    """programs to load"""


class MainFile(Document):
    """The main configuration file."""

    include: list[fields.OneLine] = []
    """more files: globs, relative to this one; each holds only programs"""
    limits: Limits = Limits()
    """of the daemon as a whole"""
    programs: list[Use | Program] = []
    """programs to load"""


def describe(document: type[Document] | None, key: str) -> str:
    """The description of a key, "" if it has none."""
    info = document.model_fields.get(key) if document is not None else None
    return (info.description or "") if info is not None else ""
