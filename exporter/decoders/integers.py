"""Decoders of plain numbers: uint, int, hex, bool."""

from __future__ import annotations

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.spec import DecodeStep


def _uint(_step: DecodeStep, given: Input, _names: Names) -> DecodeFunction:
    """Decode as unsigned: an s32 of -1 is 4294967295."""
    if given.source is None or not given.source.signed:
        return lambda number: number
    mask = (1 << 8 * given.source.size) - 1
    return lambda number: number & mask


def _int(_step: DecodeStep, given: Input, _names: Names) -> DecodeFunction:
    """Decode as signed: a u32 of 4294967295 is -1."""
    if given.source is None or given.source.signed:
        return lambda number: number
    sign = 1 << (8 * given.source.size - 1)
    return lambda number: (number ^ sign) - sign


def _hex(_step: DecodeStep, given: Input, _names: Names) -> DecodeFunction:
    """Decode a number as 0x1f (a negative one as its bits), other fields as digits in memory order."""
    if given.shape == "bytes":
        return lambda raw: raw.hex()
    mask = (1 << 8 * given.source.size) - 1 if given.source is not None else (1 << 64) - 1
    return lambda number: f"{number & mask:#x}"


def _bool(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return lambda number: "true" if number else "false"


DECODERS = (
    Decoder("uint", takes=("int",), gives="int", bind=_uint, unknown=None),
    Decoder("int", takes=("int",), gives="int", bind=_int, unknown=None),
    Decoder("hex", takes=("int", "bytes"), gives="text", bind=_hex, unknown=None),
    Decoder("bool", takes=("int",), gives="text", bind=_bool, unknown=None),
)
