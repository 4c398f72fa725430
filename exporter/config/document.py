"""The keys of the YAML files and their types. pydantic checks them, and the JSON Schema is generated from them.

The text below each field is its reference; docs/configuration.md explains more. `not_built` has the keys of the format
that this version does not support, each with what to do instead.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from exporter.config import value_types
from exporter.spec import ATTACH_KINDS

NOT_BUILT_KINDS = ("xdp", "tc_ingress", "tc_egress")
_WORKING_KINDS = "kinds that work: " + ", ".join(ATTACH_KINDS)


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    not_built: ClassVar[dict[str, str]] = {}


class LimitsDocument(Document):
    series: Annotated[int, Field(ge=1)] = 100_000
    """label sets of all metrics together; beyond them new ones fold as with max_series"""
    map_memory: value_types.Size = Field(default="256MiB", validate_default=True)
    """bytes, or 64MiB: kernel memory of one program's maps on this host; a program that needs more is not loaded"""
    label_length: Annotated[int, Field(ge=8)] = 128
    """bytes; longer label values are cut at a character"""


class RequiresDocument(Document):
    kernel: value_types.KernelRange | None = None
    """range of kernel versions, like ">=5.10" or ">=5.10, <6.12\""""
    arch: value_types.Machines = []
    """x86_64 or arm64, or a list of both"""
    module: value_types.Modules = []
    """kernel module that is loaded or built in, or a list of them"""
    member: value_types.StructMembers = []
    """STRUCT.MEMBER that this kernel's BTF has, or a list of them"""
    tracepoint_field: value_types.TracepointFields = []
    """CATEGORY:EVENT.FIELD that this kernel's tracepoint has, or a list of them"""


class AttachDocument(Document):
    """Exactly one KIND: TARGET."""

    not_built: ClassVar[dict[str, str]] = dict.fromkeys(NOT_BUILT_KINDS, _WORKING_KINDS)
    kprobe: value_types.Targets | None = None
    """FUNC or MODULE:FUNC, at entry; a list is several points, * and ? are globs of at most 200 matches"""
    kretprobe: value_types.Targets | None = None
    """FUNC or MODULE:FUNC, at return"""
    fentry: value_types.Targets | None = None
    """FUNC or MODULE:FUNC, at entry, by BTF"""
    fexit: value_types.Targets | None = None
    """FUNC or MODULE:FUNC, at return with the arguments, by BTF"""
    tracepoint: value_types.Targets | None = None
    """CATEGORY:EVENT"""
    raw_tracepoint: value_types.Targets | None = None
    """EVENT"""
    tp_btf: value_types.Targets | None = None
    """EVENT, with arguments typed by BTF"""
    uprobe: value_types.Targets | None = None
    """FILE:SYMBOL or FILE:0xOFFSET, at entry; FILE: absolute path, or the name of a library or program"""
    uretprobe: value_types.Targets | None = None
    """FILE:SYMBOL, at return"""
    usdt: value_types.Targets | None = None
    """FILE:PROVIDER:PROBE"""
    perf_event: value_types.Targets | None = None
    """event as `perf list` prints it, or TYPE:CONFIG in numbers, sampled on every CPU"""
    period: Annotated[int, Field(ge=1, le=(1 << 63) - 1)] | None = None
    """perf_event: run once in so many events"""
    frequency: Annotated[int, Field(ge=1)] | None = None
    """perf_event: run so many times a second"""
    function: value_types.CName | None = None
    """the C function; left out: the name that bcc's macro for this kind gives (kprobe__FUNC, ...)"""
    optional: bool = False
    """true: may be absent on this kernel; shown as attached 0"""


class VariantDocument(Document):
    name: value_types.VariantName
    """the C text sees -DVARIANT_NAME (upper case, other characters to _)"""
    requires: RequiresDocument = RequiresDocument()
    """all must hold, else the next variant is tried"""
    attach: list[AttachDocument]
    """all must attach, except those marked optional"""


class MapOptionsDocument(Document):
    not_built: ClassVar[dict[str, str]] = {
        "pinned": "a program of your own has to fill the map",
        "key": "it belongs to pinned",
        "value": "it belongs to pinned",
        "fill": "filter in the C text, by defines",
    }
    drain: bool = False
    """true: entries are read and deleted between scrapes, so that a small map carries any number of keys; counters and
    histograms only, of a map that the C text declares with DRAINED_HASH()"""
    ttl: value_types.Duration = Field(default="0s", validate_default=True)
    """entries that did not change for so long, like 10m, are deleted and their series end; 0s: never"""
    zeros: bool = True
    """false: entries of an array that have always been zero are left out"""
    seed: Literal["listening_ports"] | None = None
    """fill the map once before attaching: listening_ports (u16 port -> u32 count, every network namespace)"""


class LabelDocument(Document):
    name: value_types.LabelName | None = None
    """left out: the last part of field"""
    field: value_types.FieldPath | None = None
    """PATH in the key; `key` = a key that is no struct; value.a = in the value; cpu = split a per-CPU map"""
    const: str | None = None
    """the same text for all series of this metric entry, instead of field"""
    decode: list[value_types.Decode] | None = None
    """chain of decoders; left out: by the field's type"""


class BucketsDocument(Document):
    type: Literal["exp2", "exp2zero", "linear", "fixed"] = "exp2"
    """slot i counts le = 2^i (exp2), 2^(i-1) and slot 0 zeros (exp2zero), i * width (linear), bounds[i] (fixed)"""
    min: Annotated[int, Field(ge=0)] | None = None
    """slot of the first bound; lower slots are counted in it"""
    max: Annotated[int, Field(ge=0)] | None = None
    """slot of the last bound; higher slots are counted in +Inf"""
    width: value_types.FiniteNumber | None = None
    """of a linear bucket, before scale"""
    bounds: list[value_types.FiniteNumber] | None = None
    """of fixed buckets, before scale, rising"""
    slot_is_bound: bool = False
    """fixed only: the slot holds the bound itself instead of its index"""


class MetricDocument(Document):
    not_built: ClassVar[dict[str, str]] = {
        "events": "count into a map, and name it by `map`",
        "record": "it belongs to events",
    }
    name: value_types.MetricName
    """in full, no prefix is added"""
    type: Literal["counter", "gauge", "histogram"]
    """what Prometheus is told, and how the map is read"""
    help: value_types.OneLine = ""
    """one sentence, shown by Prometheus"""
    map: value_types.CName
    """the map's name in the C text"""
    value: value_types.Value | None = None
    """PATH in the value (left out: the value itself, a number); gauges only: 1 = how many entries there are"""
    scale: value_types.Scale = 1.0
    """factor, or a unit: ns us ms -> seconds, kib pages -> bytes, jiffies -> seconds, percent -> ratio"""
    reduce: Literal["sum", "max", "min"] = "sum"
    """over CPUs, over fields that are no label, over equal label sets; counters and histograms: sum only"""
    max_series: Annotated[int, Field(ge=1)] = 1000
    """label sets shown; later ones go into one with every label "other\""""
    enabled: bool = True
    """false drops this metric"""
    labels: list[LabelDocument] | None = None
    """left out: every field of the key; []: none"""
    slots: value_types.FieldPath | None = None
    """histogram: PATH of the array of slots in the value (slots); its last element is above all bounds"""
    sum: value_types.FieldPath | None = None
    """histogram: PATH of the exact sum in the value (sum, if there is one)"""
    slot: value_types.FieldPath | None = None
    """histogram: PATH of the slot in the key (`key` if it is all of it), instead of slots"""
    sum_slot: Annotated[int, Field(ge=0)] | None = None
    """histogram with slot: this slot holds the sum"""
    buckets: BucketsDocument | None = None
    """histogram: the bounds (exp2 over the whole array); required with slot"""


_PROGRAM_NOT_BUILT = {
    "cflags": "use defines",
}


class ProgramDocument(Document):
    """A program with its own C text."""

    not_built: ClassVar[dict[str, str]] = {
        **_PROGRAM_NOT_BUILT,
        "object": "give the C text by source or code",
        "kaddrs": "pass the address by defines",
    }
    name: value_types.ProgramName
    """the `program` label everywhere"""
    enabled: bool = True
    """false: not loaded, state disabled"""
    optional: bool = False
    """true: with nothing to attach to the state is skipped, not failed"""
    budget: value_types.Budget | None = None
    """CPU seconds per second over all CPUs; in three windows above it: detached, state over_budget"""
    lifetime: value_types.Duration = Field(default="0s", validate_default=True)
    """detached so long after it was loaded, like 15m, state ended; 0s: runs for ever"""
    source: value_types.OneLine | None = None
    """file of the C text, in bcc's dialect"""
    code: str | None = None
    """the C text itself, as a block: `code: |`"""
    defines: dict[value_types.CName, value_types.Define] = {}
    """become -DNAME=VALUE (true: 1, false: 0)"""
    requires: RequiresDocument = RequiresDocument()
    """all must hold, else the state is skipped"""
    attach: list[AttachDocument] | None = None
    """attach points, where there is one way"""
    variants: list[VariantDocument] | None = None
    """several ways that count the same thing; the first that this kernel accepts is used"""
    maps: dict[value_types.CName, MapOptionsDocument] = {}
    """options of maps, by their names in the C text"""
    metrics: list[MetricDocument]
    """what the maps become; the same name again adds its entries"""


class MetricOverrideDocument(Document):
    """The keys of a bundled program's metric that `use` can change."""

    name: value_types.MetricName
    """a metric of the bundled program"""
    enabled: bool | None = None
    """false drops this metric"""
    max_series: Annotated[int, Field(ge=1)] | None = None
    """label sets shown; later ones go into one with every label "other\""""


class UseDocument(Document):
    """A bundled program, or one in programs/ beside the main file."""

    not_built: ClassVar[dict[str, str]] = _PROGRAM_NOT_BUILT
    use: value_types.ProgramName
    """name of the program"""
    name: value_types.ProgramName | None = None
    """the `program` label everywhere (the name in use)"""
    enabled: bool | None = None
    """false: not loaded, state disabled"""
    optional: bool | None = None
    """true: with nothing to attach to the state is skipped, not failed"""
    budget: value_types.Budget | None = None
    """CPU seconds per second over all CPUs; in three windows above it: detached, state over_budget"""
    lifetime: value_types.Duration | None = None
    """detached so long after it was loaded, like 15m, state ended; 0s: runs for ever"""
    defines: dict[value_types.CName, value_types.Define] = {}
    """merged key by key; only keys that the bundled entry shows"""
    metrics: list[MetricOverrideDocument] = []
    """by name: enabled, max_series"""


class IncludedFile(Document):
    """A file that `include:` names."""

    programs: list[UseDocument | ProgramDocument] = []
    """programs to load"""


class MainFile(Document):
    """The main configuration file."""

    include: list[value_types.OneLine] = []
    """more files: globs, relative to this one; each holds only programs"""
    limits: LimitsDocument = LimitsDocument()
    """of the daemon as a whole"""
    programs: list[UseDocument | ProgramDocument] = []
    """programs to load"""


def describe(document: type[Document] | None, key: str) -> str:
    """Return the description of a key, "" if it has none."""
    info = document.model_fields.get(key) if document is not None else None
    return (info.description or "") if info is not None else ""
