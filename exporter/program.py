"""What loading hands to collecting: one program's state, maps with their layouts, and attachments, as plain data.

The two sides know nothing else of each other. A document is JSON (`to_json`, `from_json`), so it travels over a socket,
stands in the artifact cache and in golden tests without change. File descriptors travel beside it (`Descriptors`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

FORMAT = 2  # of the JSON document; another number is refused, never guessed at


class State(StrEnum):
    """What a program is doing; each is exported as 0 or 1."""

    LOADING = "loading"
    RUNNING = "running"
    SKIPPED = "skipped"  # unmet `requires`, or optional and nothing to attach to: nobody is paged
    DISABLED = "disabled"
    FAILED = "failed"
    OVER_BUDGET = "over_budget"
    ENDED = "ended"
    QUARANTINED = "quarantined"


class Reason(StrEnum):
    """Why something is not running or not attached: the fixed list of words that `reason` labels are made of."""

    NONE = ""
    REQUIRES = "requires"  # this kernel, architecture, member or field is not what `requires` asks for
    COMPILER = "compiler"  # clang refused the C text
    LAYOUT = "layout"  # clang and BTF disagree on a struct
    VERIFIER = "verifier"  # the kernel refused the bytecode
    MAP = "map"  # a map could not be created
    MISSING = "missing"  # the function, tracepoint or event does not exist here
    PERMISSION = "permission"
    UNSUPPORTED = "unsupported"  # this kernel has no such attach kind or map type
    LIMIT = "limit"  # more than there may be: matches of a glob, samples a second
    BINDING = "binding"  # a metric names a map or field that the C text does not have
    KILLED = "killed"  # the loader was killed (out of memory?)
    TIMEOUT = "timeout"
    BCC = "bcc"  # something must be compiled and bcc is not installed
    CACHE = "cache"  # nothing may be compiled, and the cache has nothing that fits
    BUDGET = "budget"  # it took more of the CPU than it may
    CRASH = "crash"  # the host died when it had just been attached
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union. `offset` is in bits from the start of the struct, as in BTF; `bits` is the width
    of a bit-field, 0 for an ordinary member. An anonymous struct or union has the name ""."""

    name: str
    offset: int
    type: Type
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Type:
    """A C type of a map's key or value, as BTF says it.

    kind    "int", "enum", "struct", "union", "array", "float" or "pointer"
    name    as the C text spells it: the outermost typedef ("__be16", "u32"), else the base name ("char", "bool");
            for struct, union and enum the tag or typedef, "" if anonymous
    size    bytes, of the whole array for an array
    signed  for int and enum
    encoding "char", "bool" or "" (BTF_INT_CHAR, BTF_INT_BOOL); BTF marks `char` rarely, so look at `name` as well
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
class Map:
    """A map as the kernel has it. `type` is BPF_MAP_TYPE_* (include/uapi/linux/bpf.h), `flags` BPF_F_*.

    key, value   None where the map has no such type in BTF
    lost_index   its place in the hidden map of lost updates, None if the C text counts none for it
    drain_index  its place in the hidden map of epochs, None if it is not the first of a pair that can be drained
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


LOST_UPDATES = (
    "lost_updates"  # per-CPU array of u64 by Map.lost_index; declared by programs/include/exporter.h when used
)
DRAIN_EPOCHS = "drain_epochs"  # array of u32 by Map.drain_index, declared there too: an odd one says _odd is counted in
DRAIN_BARRIER = "drain_barrier"  # array of one map, made by the loader: an update of it waits for all running programs
ODD = "_odd"  # the second of a pair has the name of the first and this


def pair(name: str) -> tuple[str, ...]:
    """The maps that draining the map of this name takes, all of which are written to."""
    return (name, name + ODD, DRAIN_EPOCHS, DRAIN_BARRIER)


def hidden(name: str, maps: Sequence[Map]) -> bool:
    """Whether a map is not one that the C text names: the exporter's own, and the second of a pair."""
    if name in (LOST_UPDATES, DRAIN_EPOCHS, DRAIN_BARRIER):
        return True
    return any(m.drain_index is not None and name == m.name + ODD for m in maps)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attach point after loading. `target` is one function or event, or a glob, as written (a list in the YAML is
    several attachments); `attached` False only for points marked optional; then `reason` and `text` say why.

    places  how many functions or events that is here, of a perf_event how many CPUs
    links   which of Descriptors.links hold it; one link may hold several points
    cpus    of each of these links, for a perf_event; else empty
    """

    kind: str
    target: str
    function: str
    attached: bool
    reason: Reason = Reason.NONE
    text: str = ""
    places: int = 1
    links: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """A variant that was tried and not used, with why. `variant` is "" where a program has no `variants:`."""

    variant: str
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Program:
    """A program after loading was tried: what the loader reports and the server shows."""

    name: str
    state: State
    reason: Reason = Reason.NONE
    text: str = ""
    variant: str = ""
    source_sha256: str = ""
    compile_seconds: float = 0.0  # 0 when the artifact came from the cache
    from_cache: bool = False
    maps: tuple[Map, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    made_of: str = ""  # of a running one: digest of its artifact and probed files (loading/cache_key.py)

    def map(self, name: str) -> Map | None:
        return next((m for m in self.maps if m.name == name), None)


@dataclass(slots=True)
class Descriptors:
    """Open file descriptors that belong to a Program document.

    maps      by map name, as created (read and write); kept by the supervisor
    readonly  by map name, the same maps opened with BPF_F_RDONLY; what the server is given
    programs  never handed to the server: a program fd can be run with chosen arguments (BPF_PROG_TEST_RUN)
    links     perf events, raw tracepoint and tracing links: closing one detaches it
    """

    maps: dict[str, int] = field(default_factory=dict)
    readonly: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    links: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Detach and free all of the program; attachments first, so that nothing counts into a map half gone."""
        for fd in (*self.links, *self.programs.values(), *self.readonly.values(), *self.maps.values()):
            os.close(fd)
        self.links.clear()
        for group in (self.programs, self.readonly, self.maps):
            group.clear()


def to_json(program: Program) -> dict[str, Any]:
    """The document as JSON values; `from_json` gives the equal Program back."""
    return {"format": FORMAT, "program": asdict(program)}


def from_json(document: dict[str, Any]) -> Program:
    """The Program of a document made by `to_json`. ValueError if it is of another format."""
    if document.get("format") != FORMAT:
        raise ValueError(f"program document of format {document.get('format')!r}, expected {FORMAT}")
    p = document["program"]
    return Program(
        **{
            **p,
            "state": State(p["state"]),
            "reason": Reason(p["reason"]),
            "maps": tuple(map_from_json(m) for m in p["maps"]),
            "attachments": tuple(_attachment_from_json(a) for a in p["attachments"]),
            "attempts": tuple(Attempt(**{**a, "reason": Reason(a["reason"])}) for a in p["attempts"]),
        }
    )


def _attachment_from_json(document: dict[str, Any]) -> Attachment:
    numbers = {name: tuple(document.get(name, ())) for name in ("links", "cpus")}
    return Attachment(**{**document, **numbers, "reason": Reason(document["reason"])})


def map_from_json(document: dict[str, Any]) -> Map:
    return Map(**{**document, "key": type_from_json(document["key"]), "value": type_from_json(document["value"])})


def type_from_json(document: dict[str, Any] | None) -> Type | None:
    """A Type out of the JSON values of `dataclasses.asdict`."""
    if document is None:
        return None
    return Type(
        **{
            **document,
            "values": tuple((str(name), int(value)) for name, value in document["values"]),
            "members": tuple(_member_from_json(m) for m in document["members"]),
            "element": type_from_json(document["element"]),
        }
    )


def _member_from_json(document: dict[str, Any]) -> Member:
    member_type = type_from_json(document["type"])
    if member_type is None:
        raise ValueError(f"member {document['name']!r} without a type")
    return Member(**{**document, "type": member_type})


def dumps(program: Program) -> str:
    return json.dumps(to_json(program), separators=(",", ":"))
