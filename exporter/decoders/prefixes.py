"""Decoder of address prefixes: cidr (struct bpf_lpm_trie_key of include/uapi/linux/bpf.h)."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Mapping

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.decoders.network import V4_MAPPED, fits_address
from exporter.spec import DecodeStep

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BITS = {4: 32, 16: 128}
_FORMS = "{cidr: 24, v6: 56}, {cidr: [10.0.0.0/8]}, {cidr: {10.0.0.0/8: internal}}, or none for the key of an LPM trie"


def _argument(step: DecodeStep) -> str | None:
    v6 = step.options.get("v6")
    if v6 is not None and not _is_length(v6, 128):
        return "decoder cidr: v6 is the length of an IPv6 prefix, 0 to 128"
    if step.argument is None or _is_length(step.argument, 32):
        return "decoder cidr: v6 goes with the length for IPv4" if v6 is not None and step.argument is None else None
    if v6 is not None:
        return "decoder cidr: v6 goes with the length for IPv4, as in {cidr: 24, v6: 56}"
    if not isinstance(step.argument, list | dict) or not step.argument:
        return f"decoder cidr: the argument is none of {_FORMS}"
    for prefix in step.argument:
        if not isinstance(prefix, str):  # ipaddress takes numbers for addresses
            return f"decoder cidr: {prefix!r} is no prefix like 10.0.0.0/8"
        try:
            ipaddress.ip_network(prefix)
        except ValueError as error:
            return f"decoder cidr: {error}"
    texts = step.argument.values() if isinstance(step.argument, dict) else ()
    wrong = next((text for text in texts if isinstance(text, bool) or not isinstance(text, int | str)), None)
    return f"decoder cidr: {wrong!r} is not a text" if wrong is not None else None


def _is_length(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _fits(step: DecodeStep, given: Input) -> str | None:
    source = given.source
    if source is None:
        return None
    if step.argument is not None:
        return fits_address(step, given)
    if source.size - 4 not in _BITS or not source.members or source.members[0].type.size != 4:
        return (
            "decoder cidr without an argument takes the key of an LPM trie, a u32 and 4 or 16 bytes, "
            f"but the field is {source.spelling} (else write a length, as in {{cidr: 24}})"
        )
    return None


def prefix(raw: bytes) -> str | None:
    """Return the key of an LPM trie, u32 prefixlen in host order and the address, as "10.0.0.0/8"."""
    return network(raw[4:], int.from_bytes(raw[:4], sys.byteorder))


def network(address: bytes, length: int) -> str | None:
    """Return the network of `length` bits that contains an address in network order; None for other sizes and
    lengths."""
    if len(address) not in _BITS or length > _BITS[len(address)]:
        return None
    return str(ipaddress.ip_network((address, length), strict=False))


def _cidr(step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    if step.argument is None:
        return prefix
    if isinstance(step.argument, int):
        v4, v6 = step.argument, step.options.get("v6", 128)
        return lambda raw: network(_plain(raw), v4 if len(_plain(raw)) == 4 else v6)
    texts = step.argument if isinstance(step.argument, dict) else {each: each for each in step.argument}
    return _table({ipaddress.ip_network(each): str(text) for each, text in texts.items()})


def _table(texts: Mapping[_Network, str]) -> DecodeFunction:
    """Decode an address to the text of the longest prefix that contains it."""
    ordered = sorted(texts, key=lambda each: -each.prefixlen)

    def run(raw: bytes) -> str | None:
        raw = _plain(raw)
        if len(raw) not in _BITS:
            return None
        address = ipaddress.ip_address(raw)
        return next((texts[each] for each in ordered if address in each), None)

    return run


def _plain(raw: bytes) -> bytes:
    """Return a v4-mapped IPv6 address as the IPv4 address, like decoder inet."""
    return raw[12:] if len(raw) == 16 and raw.startswith(V4_MAPPED) else raw


DECODERS = (
    Decoder("cidr", takes=("bytes",), gives="text", bind=_cidr, argument=_argument, fits=_fits, options=("v6",)),
)
