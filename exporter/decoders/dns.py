"""Decoder of DNS names: dname."""

from __future__ import annotations

from exporter.decoders.declaration import DecodeFunction, Decoder, Input, is_number
from exporter.decoders.names import Names
from exporter.spec import DecodeStep

LONGEST_LABEL = 63  # RFC 1035, section 2.3.4; a larger length byte is a compression pointer or a mistake
_ORDINARY = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_*")


def name(raw: bytes) -> str | None:
    """A name in wire format (RFC 1035, section 3.1: length, label, ..., 0) -> "example.com", "." for the root.

    Lower case, because resolvers mix cases on purpose (draft-vixie-dnsext-dns0x20). Bytes that are no letter, digit,
    "-", "_" or "*" are written \\DDD as in section 5.1. A name may end with the field; one whose label does not fit, or
    that is compressed, is none.
    """
    labels = []
    at = 0
    while at < len(raw) and raw[at]:
        length = raw[at]
        label = raw[at + 1 : at + 1 + length]
        if length > LONGEST_LABEL or len(label) < length:
            return None
        labels.append("".join(chr(byte) if byte in _ORDINARY else f"\\{byte:03d}" for byte in label.lower()))
        at += 1 + length
    return ".".join(labels) or "."


def _fits(_step: DecodeStep, given: Input) -> str | None:
    if given.source is not None and is_number(given.source):
        return f"decoder dname takes bytes, but the field is a number ({given.source.spelling})"
    return None


def _dname(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return name


DECODERS = (Decoder("dname", takes=("bytes",), gives="text", bind=_dname, fits=_fits),)
