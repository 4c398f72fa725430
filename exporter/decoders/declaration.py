"""The declaration of a decoder, and the description of the field that it decodes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from exporter.decoders.names import Names
from exporter.program import Type
from exporter.spec import DecodeStep

Shape = Literal["int", "bytes", "text"]

# One value (int, bytes or str, as `takes` declares) -> the answer of a bound decoder, None for no answer.
DecodeFunction = Callable[[Any], "int | str | None"]

BIG_ENDIAN = ("__be16", "__be32", "__be64")  # include/uapi/linux/types.h
LITTLE_ENDIAN = ("__le16", "__le32", "__le64")


@dataclass(frozen=True, slots=True)
class Input:
    """The input of one step of a chain.

    shape   of the value
    source  the type of the field if this step is the first: its size, sign and enum names
    before  the decoder in front, "" if this step is the first
    """

    shape: Shape
    source: Type | None = None
    before: str = ""


def no_argument(step: DecodeStep) -> str | None:
    return None if step.argument is None else f"decoder {step.name} takes no argument"


def fits_anything(_step: DecodeStep, _given: Input) -> str | None:
    return None


def fits_no_number(step: DecodeStep, given: Input) -> str | None:
    if given.source is not None and is_number(given.source):
        return f"decoder {step.name} takes bytes, but the field is a number ({given.source.spelling})"
    return None


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder.

    takes     accepted shapes, the preferred one first; "int" is the number in host order (a __be16 is swapped already),
              "bytes" the field as it is in memory, "text" the answer of an earlier step or a char[]
    gives     shape of the answer
    bind      returns the decoding function; called once per label, so that it prepares lookups and tables.
              The function never raises: it returns None for data that it cannot decode
    argument  returns the mistake in the step's argument and options, None if there is none
    fits      returns the mistake of the step for this input, None if there is none
    options   keys that are allowed beside the decoder's name
    unknown   replaces "no answer" unless the step has its own `unknown`: "keep", "drop" or a text;
              None for a decoder that always has an answer
    volatile  True if the answer for one value can change with time (a cgroup, an interface)
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
    """Return True for char[N] of one dimension; u8[N] can be any data."""
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
    """Return the byte order of an integer: the host's, except of __be16 to __le64 (include/uapi/linux/types.h)."""
    if field.name in BIG_ENDIAN:
        return "big"
    if field.name in LITTLE_ENDIAN:
        return "little"
    return sys.byteorder
