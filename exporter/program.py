"""A program after loading: state, maps with their layouts, and attachments, as plain data.

Loading and collecting share only these models. They become JSON values (spec.PlainModel) in messages, in the artifact
cache and, with a format number, in recordings. File descriptors are passed beside them (`Descriptors`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from exporter.spec import CountsModel, PlainModel

FORMAT = 2  # of a recording's document; another number is refused


class State(StrEnum):
    """The state of a program; each is exported as 0 or 1."""

    LOADING = "loading"
    RUNNING = "running"
    SKIPPED = "skipped"  # unmet `requires`, or optional and nothing to attach to; no alert
    DISABLED = "disabled"
    FAILED = "failed"
    OVER_BUDGET = "over_budget"
    ENDED = "ended"
    QUARANTINED = "quarantined"


class Reason(StrEnum):
    """The cause why a program does not run or a point is not attached: the values of `reason` labels."""

    NONE = ""
    REQUIRES = "requires"  # the kernel does not meet `requires`
    COMPILER = "compiler"  # clang refused the C text
    LAYOUT = "layout"  # clang and BTF disagree on a struct
    VERIFIER = "verifier"  # the kernel refused the bytecode
    MAP = "map"  # a map could not be created
    MISSING = "missing"  # the function, tracepoint or event does not exist on this kernel
    PERMISSION = "permission"
    UNSUPPORTED = "unsupported"  # this kernel does not have the attach kind or map type
    LIMIT = "limit"  # too many matches of a glob or samples a second
    BINDING = "binding"  # a metric names a map or field that the C text does not have
    KILLED = "killed"  # the loader was killed (out of memory?)
    TIMEOUT = "timeout"
    BCC = "bcc"  # the program must be compiled and bcc is not installed
    CACHE = "cache"  # --no-compile, and the cache has no matching artifact
    BUDGET = "budget"  # it used more CPU time than its budget
    CRASH = "crash"  # the host crashed just after it was attached
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Member(CountsModel):
    """A member of a struct or union. `offset` is in bits from the start of the struct, as in BTF; `bits` is the width
    of a bit-field, 0 for an ordinary member. An anonymous struct or union has the name ""."""

    name: str
    offset: int
    type: Type
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Type(CountsModel):
    """A C type of a map's key or value (Documentation/bpf/btf.rst).

    kind    "int", "enum", "struct", "union", "array", "float" or "pointer"
    name    as in the C text: the outermost typedef ("__be16", "u32"), else the base name ("char", "bool");
            for struct, union and enum the tag or typedef, "" if anonymous
    size    bytes, of the whole array for an array
    signed  for int and enum
    encoding "char", "bool" or "" (BTF_INT_CHAR, BTF_INT_BOOL); compilers rarely set it for `char`, so check `name` too
    values  of an enum, in order of declaration
    """

    kind: str
    name: str
    size: int
    signed: bool = False
    encoding: str = ""
    values: tuple[tuple[str, int], ...] = ()
    members: tuple[Member, ...] = ()
    element: Type | None = None
    count: int = 0

    @property
    def spelling(self) -> str:
        """The type as C spells it: "u32", "char[16]", "struct key"; without a name "an anonymous struct", "pointer"."""
        if self.kind == "array" and self.element is not None:
            return f"{self.element.spelling}[{self.count}]"
        if self.kind in ("struct", "union", "enum"):
            return f"{self.kind} {self.name}" if self.name else f"an anonymous {self.kind}"
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Map(CountsModel):
    """A map in the kernel. `type` is BPF_MAP_TYPE_* (include/uapi/linux/bpf.h), `flags` BPF_F_*.

    key, value   None where the map has no such type in BTF
    lost_index   index in the hidden map of lost updates, None if the C text does not count them
    drain_index  index in the hidden map of epochs, None if the map is not the first of a pair that can be drained
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    key: Type | None = None
    value: Type | None = None
    lost_index: int | None = None
    drain_index: int | None = None


# Hidden maps, declared by programs/include/exporter.h where the C text uses them.
LOST_UPDATES = "lost_updates"  # per-CPU array of u64 by Map.lost_index
DRAIN_EPOCHS = "drain_epochs"  # array of u32 by Map.drain_index: programs count in the second map at an odd one
DRAIN_BARRIER = "drain_barrier"  # array of one map, made by the loader: updating it waits for all running programs
ODD = "_odd"  # suffix of the name of the second map of a pair


def pair(name: str) -> tuple[str, ...]:
    """Return the maps that draining needs, all of them writable."""
    return (name, name + ODD, DRAIN_EPOCHS, DRAIN_BARRIER)


def hidden(name: str, maps: Sequence[Map]) -> bool:
    """Return True for the exporter's own maps and the second map of a pair, which the C text does not name."""
    if name in (LOST_UPDATES, DRAIN_EPOCHS, DRAIN_BARRIER):
        return True
    return any(m.drain_index is not None and name == m.name + ODD for m in maps)


@dataclass(frozen=True, slots=True)
class Attachment(CountsModel):
    """One attach point after loading.

    target    one function or event, or a glob, as written; a list in the YAML is several attachments
    attached  False only for an optional point, with `reason` and `text`
    sites     how many functions or events match, of a perf_event how many CPUs
    links     indices in Descriptors.links; one link can hold several points
    cpus      the CPU of each link of a perf_event; else empty
    """

    kind: str
    target: str
    function: str
    attached: bool
    reason: Reason = Reason.NONE
    text: str = ""
    sites: int = 1
    links: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt(PlainModel):
    """A variant that was tried and failed. `variant` is "" for a program without `variants:`."""

    variant: str
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Program(CountsModel):
    """A program after loading: the loader reports it and the server shows it."""

    name: str
    state: State
    reason: Reason = Reason.NONE
    text: str = ""
    variant: str = ""
    source_sha256: str = ""
    compile_seconds: float = 0.0  # 0 if the artifact is from the cache
    from_cache: bool = False
    maps: tuple[Map, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    made_of: str = ""  # of a running one: digest of its artifact and probed files (loading/cache_key.py)

    def map(self, name: str) -> Map | None:
        return next((m for m in self.maps if m.name == name), None)


@dataclass(slots=True)
class Descriptors:
    """The open file descriptors of a Program document.

    maps      by map name, readable and writable; for the supervisor
    readonly  by map name, the same maps opened with BPF_F_RDONLY; for the server
    programs  never for the server: a program fd can be run with chosen arguments (BPF_PROG_TEST_RUN)
    links     perf events, raw tracepoint and tracing links: closing one detaches it
    """

    maps: dict[str, int] = field(default_factory=dict)
    readonly: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    links: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Close all, attachments first: the program is detached before its maps are freed."""
        for fd in (*self.links, *self.programs.values(), *self.readonly.values(), *self.maps.values()):
            os.close(fd)
        self.links.clear()
        for group in (self.programs, self.readonly, self.maps):
            group.clear()


def to_json(program: Program) -> dict[str, Any]:
    """Return the document of a recording; `from_json` gives the equal Program back."""
    return {"format": FORMAT, "program": program.model_dump()}


def from_json(document: dict[str, Any]) -> Program:
    """Return the Program of a document made by `to_json`. ValueError if it is of another format."""
    if document.get("format") != FORMAT:
        raise ValueError(f"program document of format {document.get('format')!r}, expected {FORMAT}")
    return Program.model_validate(document["program"])


def dumps(program: Program) -> str:
    return json.dumps(to_json(program), separators=(",", ":"))
