"""The types of single values in a configuration: each checks its spelling; the message names what would be right.

A message continues after the key and the value: `name "9x" is no metric name; ...`.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from exporter.config.durations import DURATION, seconds
from exporter.kernel.near import did_you_mean
from exporter.spec import DecodeStep

UNITS: dict[str, float] = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "kib": 1024.0,
    "pages": float(os.sysconf("SC_PAGE_SIZE")),
    "jiffies": 1.0 / os.sysconf("SC_CLK_TCK"),  # USER_HZ, the unit of times in /proc
    "percent": 0.01,
}
IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
PATH = rf"{IDENTIFIER}(\[[0-9]+\])*(\.{IDENTIFIER}(\[[0-9]+\])*)*"


def wrong(text: str) -> PydanticCustomError:
    """Return an error whose message is `text` without interpolation."""
    return PydanticCustomError("config", "{text}", {"text": text})


@dataclass(frozen=True, slots=True)
class Spelled:
    """For Annotated[str, ...]: a text that matches `pattern` as a whole, else the message is `problem`."""

    pattern: str
    problem: str

    def check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise wrong(self.problem)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "pattern": f"^({self.pattern})$"}


ProgramName = Annotated[str, Spelled("[a-z0-9_]+", "is no program name; use a-z, 0-9 and _")]
VariantName = Annotated[
    str, Spelled("[a-zA-Z0-9_.-]+", "is no variant name; use letters, digits, _, . and -, without spaces")
]
MetricName = Annotated[
    str,
    Spelled(r"[a-zA-Z_:][a-zA-Z0-9_:]*", "is no metric name; use letters, digits, _ and :, and no digit in front"),
]
_NAME_IN_C = "use letters, digits and _, and no digit in front"
LabelName = Annotated[str, Spelled(IDENTIFIER, f"is no label name; {_NAME_IN_C}")]
CName = Annotated[str, Spelled(IDENTIFIER, f"is no C name; {_NAME_IN_C}")]
FieldPath = Annotated[str, Spelled(PATH, "is no path to a field; write it like a, a.b or a[2]")]
_VERSION = r"(>=|<=|==|>|<) *[0-9]+(\.[0-9]+){0,2}"
KernelRange = Annotated[
    str,
    Spelled(
        f"{_VERSION}(, *{_VERSION})*",
        'is no range of kernel versions; write one like ">=5.10" or ">=5.10, <6.12"',
    ),
]


def _no_control(value: str) -> str:
    if any(ord(character) < 0x20 for character in value):
        raise wrong("has a line end or control character; write it on one line")
    return value


OneLine = Annotated[str, AfterValidator(_no_control)]


@dataclass(frozen=True, slots=True)
class OneOrMore:
    """For Annotated[list[str], ...]: a text or a list of texts, each matching `pattern`; `right`: how to write one."""

    pattern: str
    right: str

    def read(self, value: Any) -> list[str]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise wrong(f"is neither text nor a list of texts; {self.right}, in quotes where YAML sees a number")
        if not texts:
            raise wrong(f"is an empty list; {self.right}, or leave the key out")
        for text in texts:
            if not re.fullmatch(self.pattern, text):
                problem = "is not spelled right" if texts is not value else f'has "{text}"'
                raise wrong(f"{problem}; {self.right}")
            if texts.count(text) > 1:
                raise wrong(f'names "{text}" twice; name it once')
        return texts

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        item = {"type": "string", "pattern": f"^({self.pattern})$"}
        return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}]}


Targets = Annotated[list[str], OneOrMore(r".+", "name a function or event, or a list of them")]
Machines = Annotated[list[str], OneOrMore("x86_64|arm64", "write x86_64 or arm64")]
Modules = Annotated[list[str], OneOrMore(r"[A-Za-z0-9_-]+", "write the name of a kernel module, like nf_conntrack")]
StructMembers = Annotated[
    list[str], OneOrMore(rf"{IDENTIFIER}(\.{IDENTIFIER})+", 'write STRUCT.MEMBER, like "request_queue.disk"')
]
TracepointFields = Annotated[
    list[str],
    OneOrMore(
        rf"{IDENTIFIER}:{IDENTIFIER}\.{IDENTIFIER}",
        'write CATEGORY:EVENT.FIELD, like "tcp:tcp_send_reset.reason"',
    ),
]


def _scale(value: Any) -> float:
    if isinstance(value, str):
        if value not in UNITS:
            raise wrong(f"is no unit; {did_you_mean(value, UNITS, otherwise='write a number or one of')}")
        return UNITS[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"is no number; write a number or one of {', '.join(UNITS)}")
    if not math.isfinite(value) or value <= 0:
        raise wrong("cannot be a scale; write a number above 0")
    return float(value)


Scale = Annotated[
    float,
    PlainValidator(_scale),
    WithJsonSchema({"anyOf": [{"enum": list(UNITS)}, {"type": "number", "exclusiveMinimum": 0}], "default": 1}),
]


def _define(value: Any) -> int | str:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return _no_control(value)
    raise wrong('is no value of a define; write an integer, a text or true/false (C has the number 1.5 as text: "1.5")')


Define = Annotated[
    int | str,
    PlainValidator(_define),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "boolean"}]}),
]


def _value(value: Any) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool):
        if value != 1:
            raise wrong("is no field; write a path to a field of the value, or 1 to count the entries")
        return value
    if not isinstance(value, str):
        raise wrong("is no field; write a path to a field of the value, or 1 to count the entries")
    if not re.fullmatch(PATH, value):
        raise wrong("is no path to a field; write it like a, a.b or a[2]")
    return value


Value = Annotated[
    str | int,
    PlainValidator(_value),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^({PATH})$"}, {"const": 1}]}),
]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise wrong("is no finite number; write one")
    return value


FiniteNumber = Annotated[float, AfterValidator(_finite)]


def _budget(value: float) -> float:
    if not 0 < value < math.inf:
        raise wrong("is no budget; write CPU seconds per second over all CPUs, like 0.02, or leave it out for none")
    return value


Budget = Annotated[float, AfterValidator(_budget), Field(json_schema_extra={"exclusiveMinimum": 0})]

_DIGITS = "[0-9]{10,}"  # of a number that float() makes infinite or int() refuses


def _duration(value: Any) -> float:
    found = seconds(value) if isinstance(value, str) else None
    if found is None:
        if isinstance(value, str) and re.fullmatch(f"{_DIGITS}[a-z]+", value):
            raise wrong("is too long; write at most 9 digits, or 0s for never")
        raise wrong("is no duration; write a number and its unit, like 90s, 10m or 1h")
    return found


Duration = Annotated[
    float, PlainValidator(_duration), WithJsonSchema({"type": "string", "pattern": f"^({DURATION})$", "default": "0s"})
]

_SIZES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = r"([0-9]{1,9})(KiB|MiB|GiB)"


def _size(value: Any) -> int:
    match = re.fullmatch(f"{_SIZE}|([0-9]{{1,18}})", str(value)) if isinstance(value, int | str) else None
    size = 0 if match is None else int(match[3]) if match[3] else int(match[1]) * _SIZES[match[2]]
    if size <= 0 or isinstance(value, bool):
        raise wrong("is no size; write bytes, or a number with KiB, MiB or GiB, like 64MiB")
    return size


Size = Annotated[
    int,
    PlainValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^({_SIZE})$"}],
            "default": "256MiB",
        }
    ),
]


def _decode(value: Any) -> DecodeStep:
    """`cgroup` or `{NAME: ARGUMENT, option: ..., unknown: ...}`: the first key that is not `unknown` is the decoder."""
    if isinstance(value, str):
        return DecodeStep(name=value)
    if not isinstance(value, dict):
        raise wrong("is no decoder; write its name, or {NAME: ARGUMENT}")
    rest = dict(value)
    unknown = rest.pop("unknown", None)
    if unknown is not None and not isinstance(unknown, str):
        raise wrong("has an `unknown` that is no text; write keep, drop or a text in quotes")
    if not rest or not all(isinstance(key, str) for key in rest):
        raise wrong("names no decoder; write {NAME: ARGUMENT}, like {map: {2: ipv4, 10: ipv6}}")
    name = next(iter(rest))
    return DecodeStep(name=name, argument=rest.pop(name), options=rest, unknown=unknown)


Decode = Annotated[
    DecodeStep,
    PlainValidator(_decode),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "minProperties": 1, "properties": {"unknown": {"type": "string"}}},
            ]
        }
    ),
]
