"""Bytecode as bcc leaves it -> bytecode that can be kept: map fds out, forbidden calls refused.

Instruction format: Documentation/bpf/standardization/instruction-set.rst; names from include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

INSTRUCTION_SIZE = 8  # struct bpf_insn: code u8, dst_reg and src_reg u4 each, off s16, imm s32
_LD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW, two instructions long
_CALL = 0x85  # BPF_JMP | BPF_CALL
BPF_PSEUDO_MAP_FD = 1
BPF_PSEUDO_CALL = 1

# An exporter observes: what writes to user memory, changes a return value or signals a process is none of its business.
FORBIDDEN_HELPERS = {
    36: "bpf_probe_write_user",
    58: "bpf_override_return",
    109: "bpf_send_signal",
    117: "bpf_send_signal_thread",
}


def relocatable(code: bytes, names: Mapping[int, str]) -> tuple[bytes, tuple[tuple[int, str], ...]]:
    """Takes the map fds out of `code`: the code with 0 for each, and (instruction index, map name) of each.

    names   map name by fd. KeyError for an fd that is not among them.
    """
    clean = bytearray(code)
    maps = []
    for index, opcode, source, immediate in _instructions(code):
        if opcode == _LD_IMM64 and source == BPF_PSEUDO_MAP_FD:
            maps.append((index, names[immediate]))
            struct.pack_into("<i", clean, index * INSTRUCTION_SIZE + 4, 0)
    return bytes(clean), tuple(maps)


def forbidden_calls(code: bytes) -> list[str]:
    """Names of the helpers that `code` calls and may not, each once."""
    called = {FORBIDDEN_HELPERS.get(number) for number in helpers(code)}
    return sorted(name for name in called if name)


def helpers(code: bytes) -> set[int]:
    """Ids of the helpers that `code` calls (enum bpf_func_id)."""
    return {immediate for _, opcode, source, immediate in _instructions(code) if opcode == _CALL and source == 0}


def has_subprograms(code: bytes) -> bool:
    """Whether `code` calls another function of the module, which bcc does not carry along."""
    return any(opcode == _CALL and source == BPF_PSEUDO_CALL for _, opcode, source, _ in _instructions(code))


def constants(code: bytes) -> list[int]:
    """The 64-bit numbers that `code` loads, those for maps left out."""
    return [
        immediate & 0xFFFFFFFF | struct.unpack_from("<I", code, (index + 1) * INSTRUCTION_SIZE + 4)[0] << 32
        for index, opcode, source, immediate in _instructions(code)
        if opcode == _LD_IMM64 and source == 0
    ]


def _instructions(code: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(index, opcode, source register, immediate) of each; the second half of a 16-byte one is left out."""
    if len(code) % INSTRUCTION_SIZE:
        raise ValueError(f"bytecode of {len(code)} bytes is no whole number of instructions")
    second_half = False
    for index, (opcode, registers, _, immediate) in enumerate(struct.iter_unpack("<BBhi", code)):
        if second_half:
            second_half = False
            continue
        second_half = opcode == _LD_IMM64
        yield index, opcode, registers >> 4, immediate
