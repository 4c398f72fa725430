"""The artifact: what the compiler made of one variant of one program, and all that loading it needs."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.program import Map


@dataclass(frozen=True, slots=True)
class Function:
    """Bytecode of one C function. `maps`: (instruction index, map name) of every BPF_LD_IMM64 that loads a map; its
    immediate is 0 here and becomes the fd at load."""

    name: str
    instructions: bytes
    maps: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """What bcc made of one variant.

    btf         raw BTF of the module that the compiler made, with the maps' key and value types; b"" if none
    btf_types   map name -> (key type id, value type id) in it
    maps        definitions and layouts
    """

    key: str
    program: str
    variant: str
    arch: str
    release: str
    bcc_version: str
    license: str
    maps: tuple[Map, ...]
    functions: tuple[Function, ...]
    btf: bytes
    btf_types: dict[str, tuple[int, int]]
    compile_seconds: float
