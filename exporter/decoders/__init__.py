"""Bytes and numbers of a map's key or value -> label text.

A decoder is a row in the table DECODERS of its family's module. chain.py lists the families (_FAMILIES), and checks and
binds the chains of a configuration. This folder does not read maps.
"""

from exporter.decoders.chain import Chain, ChainError, all_decoders, chain, check_chain
from exporter.decoders.declaration import Decoder, Input
from exporter.decoders.names import Names

__all__ = ["Chain", "ChainError", "Decoder", "Input", "Names", "all_decoders", "chain", "check_chain"]
