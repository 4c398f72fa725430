"""Decoder of DNS names in wire format: dname (RFC 1035)."""

from __future__ import annotations

from exporter.decoders.declaration import DecodeFunction, Decoder, Input, fits_no_number
from exporter.decoders.names import Names
from exporter.spec import DecodeStep

LONGEST_LABEL = 63  # RFC 1035, section 2.3.4; a larger length byte is a compression pointer or a mistake
_ORDINARY = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_*")


def name(raw: bytes) -> str | None:
    """Return a name in wire format (RFC 1035, section 3.1: length, label, ..., 0) as "example.com", "." for the root.

    In lower case, because resolvers randomise case (draft-vixie-dnsext-dns0x20). Bytes other than letters, digits, "-",
    "_" and "*" are written \\DDD as in section 5.1. A name may end with the field. None for a compressed name, or a
    label that does not fit.
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


def _dname(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return name


DECODERS = (Decoder("dname", takes=("bytes",), gives="text", bind=_dname, fits=fits_no_number),)
