"""Decoders: bytes of a map's key or value -> label text."""

from exporter.decoders.chain import Chain, ChainError, chain, check_chain, types
from exporter.decoders.declaration import Decoder, Input
from exporter.decoders.names import Names

__all__ = ["Chain", "ChainError", "Decoder", "Input", "Names", "chain", "check_chain", "types"]
