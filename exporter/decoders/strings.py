"""Decoder of C strings: string."""

from __future__ import annotations

from exporter.config.model import Decode
from exporter.decoders.declaration import Decoder, Input, Run, is_number, spell
from exporter.decoders.names import Names


def text(raw: bytes) -> str:
    """The text in front of the first NUL (all of it without one); bytes that are not UTF-8 become U+FFFD."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def _fits(_step: Decode, given: Input) -> str | None:
    if given.source is not None and is_number(given.source):
        return f"decoder string takes bytes, but the field is a number ({spell(given.source)})"
    return None


def _string(_step: Decode, _given: Input, _names: Names) -> Run:
    return text


DECODERS = (Decoder("string", takes=("bytes",), gives="text", bind=_string, fits=_fits, unknown=None),)
