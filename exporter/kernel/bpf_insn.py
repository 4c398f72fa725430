"""Instructions of a BPF program, struct bpf_insn of include/uapi/linux/bpf.h: walked, searched and relocated.

Format: Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_INSN = struct.Struct("=BBhi")  # code, dst_reg (low half) and src_reg, off, imm
_IMM = 4  # offset of imm

BPF_LD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW, two instructions long: the second one's imm is the upper half
BPF_CALL = 0x85  # BPF_JMP | BPF_CALL
BPF_PSEUDO_MAP_FD = 1  # src_reg of a BPF_LD_IMM64 whose imm is the fd of a map
BPF_PSEUDO_CALL = 1  # src_reg of a BPF_CALL of a function of the same program; 0 is a helper

RETURN_0 = _INSN.pack(0xB7, 0, 0, 0) + _INSN.pack(0x95, 0, 0, 0)  # r0 = 0; exit


@dataclass(frozen=True, slots=True)
class Insn:
    """One instruction. `imm` of a BPF_LD_IMM64 is the whole 64-bit number."""

    index: int
    code: int
    src_reg: int
    imm: int


def walk(program: bytes) -> Iterator[Insn]:
    """Yield the instructions; a BPF_LD_IMM64 is one. ValueError where one of them is cut."""
    if len(program) % _INSN.size:
        raise ValueError(f"bytecode of {len(program)} bytes is no whole number of instructions")
    instructions = enumerate(_INSN.iter_unpack(program))
    for index, (code, registers, _, imm) in instructions:
        if code == BPF_LD_IMM64:
            following = next(instructions, None)
            if following is None:
                raise ValueError("bytecode ends in half of a BPF_LD_IMM64")
            upper = following[1][3]
            imm = (imm & 0xFFFFFFFF) | (upper & 0xFFFFFFFF) << 32
        yield Insn(index, code, registers >> 4, imm)


def helpers(program: bytes) -> set[int]:
    """Return the ids (enum bpf_func_id) of the helpers that the program calls."""
    return {insn.imm for insn in walk(program) if insn.code == BPF_CALL and insn.src_reg == 0}


def has_subprograms(program: bytes) -> bool:
    """Return True if the program calls another function of its module."""
    return any(insn.code == BPF_CALL and insn.src_reg == BPF_PSEUDO_CALL for insn in walk(program))


def constants(program: bytes) -> list[int]:
    """Return the 64-bit numbers that the program loads, without those that stand for maps."""
    return [insn.imm for insn in walk(program) if insn.code == BPF_LD_IMM64 and insn.src_reg == 0]


def relocatable(program: bytes, names: Mapping[int, str]) -> tuple[bytes, tuple[tuple[int, str], ...]]:
    """Return the program with 0 for every map fd, and (instruction index, map name) of each of them.

    names   map name by fd. KeyError for an fd that is not among them.
    """
    loads = [insn for insn in walk(program) if insn.code == BPF_LD_IMM64 and insn.src_reg == BPF_PSEUDO_MAP_FD]
    maps = tuple((insn.index, names[insn.imm]) for insn in loads)
    return relocated(program, maps, dict.fromkeys(names.values(), 0)), maps


def relocated(program: bytes, maps: Sequence[tuple[int, str]], fds: Mapping[str, int]) -> bytes:
    """Return the program with the fd of each map in the instruction that loads it: the opposite of `relocatable`."""
    code = bytearray(program)
    for index, name in maps:
        struct.pack_into("=i", code, index * _INSN.size + _IMM, fds[name])
    return bytes(code)
