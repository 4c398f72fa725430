"""Walks over the instructions of a program, and map fds taken out of it and put in."""

from __future__ import annotations

import struct

import pytest

from exporter.kernel import bpf_insn


def instruction(opcode: int, source: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, source << 4, 0, immediate)


EXIT = instruction(0x95)


def load_map(fd: int) -> bytes:
    return instruction(0x18, bpf_insn.BPF_PSEUDO_MAP_FD, fd) + instruction(0)


def test_map_fds_become_names() -> None:
    code = load_map(7) + instruction(0xB7, immediate=7) + load_map(9) + EXIT
    clean, maps = bpf_insn.relocatable(code, {7: "sends", 9: "start"})
    assert maps == ((0, "sends"), (3, "start"))
    assert clean == load_map(0) + instruction(0xB7, immediate=7) + load_map(0) + EXIT


def test_constants_that_look_like_instructions_are_left_alone() -> None:
    constant = instruction(0x18) + struct.pack("<BBhi", 0x18, 0x10, 0, 7)
    assert bpf_insn.relocatable(constant + EXIT, {7: "sends"}) == (constant + EXIT, ())


def test_an_fd_of_no_map_is_an_error() -> None:
    with pytest.raises(KeyError):
        bpf_insn.relocatable(load_map(3), {7: "sends"})


def test_each_helper_that_is_called_is_listed_once() -> None:
    code = b"".join(instruction(0x85, immediate=number) for number in (1, 109, 36, 1)) + EXIT
    assert bpf_insn.helpers(code) == {1, 36, 109}


def test_a_call_of_a_function_is_not_a_call_of_a_helper() -> None:
    code = instruction(0x85, bpf_insn.BPF_PSEUDO_CALL, 36) + EXIT
    assert bpf_insn.helpers(code) == set()
    assert bpf_insn.has_subprograms(code)
    assert not bpf_insn.has_subprograms(instruction(0x85, immediate=36))


def test_half_an_instruction_is_an_error() -> None:
    with pytest.raises(ValueError, match="bytecode of 12 bytes is no whole number of instructions"):
        bpf_insn.helpers(bytes(12))


def test_map_fds_go_where_the_instructions_load_maps() -> None:
    code = bytes([0x18, 0x11, 0, 0, 0, 0, 0, 0]) + bytes(8) + bytes([0x95, 0, 0, 0, 0, 0, 0, 0])
    done = bpf_insn.relocated(code, ((0, "m"),), {"m": 0x01020304})
    assert int.from_bytes(done[4:8], "little") == 0x01020304
    assert (done[:4], done[8:]) == (code[:4], code[8:])
