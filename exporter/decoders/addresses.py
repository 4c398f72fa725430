"""Decoder of kernel addresses: ksym."""

from __future__ import annotations

from exporter.config.model import Decode
from exporter.decoders.declaration import Decoder, Input, Run
from exporter.decoders.names import Names

_ADDRESS = (1 << 64) - 1  # an s64 holds a kernel address as a negative number


def _ksym(_step: Decode, _given: Input, names: Names) -> Run:
    """The function that holds the address, without offset; a null pointer is "none"."""
    return lambda address: names.symbol(address & _ADDRESS) if address else "none"


DECODERS = (Decoder("ksym", takes=("int",), gives="text", bind=_ksym),)
