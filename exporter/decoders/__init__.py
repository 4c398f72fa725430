"""Decoders: bytes and numbers of a map's key or value -> label text.

A family of decoders is one module with a table DECODERS; chain.py checks the chains that a configuration writes.
Nothing here reads a map.
"""

from exporter.decoders.chain import Chain, ChainError, all_decoders, chain, check_chain
from exporter.decoders.declaration import Decoder, Input
from exporter.decoders.names import Names

__all__ = ["Chain", "ChainError", "Decoder", "Input", "Names", "all_decoders", "chain", "check_chain"]
