"""What a decoder declares of itself, and what it is told of the field it will read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from exporter.decoders.names import Names
from exporter.program import Type
from exporter.spec import DecodeStep

Shape = Literal["int", "bytes", "text"]

# A bound decoder: one value in (int, bytes or str as `takes` says), its answer out. None = it has no answer.
DecodeFunction = Callable[[Any], "int | str | None"]

_BIG_ENDIAN = ("__be16", "__be32", "__be64")
_LITTLE_ENDIAN = ("__le16", "__le32", "__le64")


@dataclass(frozen=True, slots=True)
class Input:
    """What comes into one step of a chain.

    shape   of the value
    source  the field's Type if this step is the first, so that a decoder can look at size, sign and enum names
    before  the decoder in front, "" if this step is the first
    """

    shape: Shape
    source: Type | None = None
    before: str = ""


def no_argument(step: DecodeStep) -> str | None:
    return None if step.argument is None else f"decoder {step.name} takes no argument"


def fits_anything(_step: DecodeStep, _given: Input) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder as its file declares it.

    takes     shapes it can read, the one it likes best first; "int" is the field's number in host order (a __be16 is
              already swapped), "bytes" the field as it lies in memory, "text" what an earlier step or a char[] gives
    gives     shape of its answer
    bind      makes the function that decodes; called once per label, so lookups and tables are prepared here.
              The function never raises for odd data: it answers None
    argument  says what is wrong with the step's argument and options, None if nothing is
    fits      says what is wrong with the step once it is known what comes in, None if nothing is
    options   keys allowed beside the decoder's own name
    unknown   what stands for "no answer" unless the step says otherwise: "keep", "drop" or a text;
              None for a decoder that always has an answer
    volatile  the answer for the same value can change with time (a cgroup, an interface)
    """

    name: str
    takes: tuple[Shape, ...]
    gives: Literal["int", "text"]
    bind: Callable[[DecodeStep, Input, Names], DecodeFunction]
    argument: Callable[[DecodeStep], str | None] = no_argument
    fits: Callable[[DecodeStep, Input], str | None] = fits_anything
    options: tuple[str, ...] = ()
    unknown: str | None = "unknown"
    volatile: bool = False


def is_char_array(field: Type) -> bool:
    """True for char[N] of one dimension. A u8[N] is not: it may hold anything."""
    element = field.element
    return (
        field.kind == "array"
        and element is not None
        and element.kind == "int"
        and element.size == 1
        and (element.encoding == "char" or element.name in ("char", "signed char"))
    )


def is_number(field: Type) -> bool:
    return field.kind in ("int", "enum", "pointer")


def is_bool(field: Type) -> bool:
    return field.kind == "int" and (field.encoding == "bool" or field.name in ("bool", "_Bool"))


def byte_order(field: Type) -> Literal["little", "big"]:
    """Byte order of an integer: the host's, but for the kernel's __be16 ... __le64 (include/uapi/linux/types.h)."""
    if field.name in _BIG_ENDIAN:
        return "big"
    if field.name in _LITTLE_ENDIAN:
        return "little"
    return sys.byteorder
