"""What is taken out of bytecode and what is refused in it."""

from __future__ import annotations

import struct

import pytest

from exporter.loading.compiling import bytecode


def instruction(opcode: int, source: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, source << 4, 0, immediate)


EXIT = instruction(0x95)


def load_map(fd: int) -> bytes:
    return instruction(0x18, bytecode.BPF_PSEUDO_MAP_FD, fd) + instruction(0)


def test_map_fds_become_names() -> None:
    code = load_map(7) + instruction(0xB7, immediate=7) + load_map(9) + EXIT
    clean, maps = bytecode.relocatable(code, {7: "sends", 9: "start"})
    assert maps == ((0, "sends"), (3, "start"))
    assert clean == load_map(0) + instruction(0xB7, immediate=7) + load_map(0) + EXIT


def test_constants_that_look_like_instructions_are_left_alone() -> None:
    constant = instruction(0x18) + struct.pack("<BBhi", 0x18, 0x10, 0, 7)
    assert bytecode.relocatable(constant + EXIT, {7: "sends"}) == (constant + EXIT, ())


def test_an_fd_of_no_map_is_an_error() -> None:
    with pytest.raises(KeyError):
        bytecode.relocatable(load_map(3), {7: "sends"})


def test_helpers_that_change_what_they_observe_are_found() -> None:
    code = b"".join(instruction(0x85, immediate=number) for number in (1, 109, 36, 58, 117, 36)) + EXIT
    assert bytecode.forbidden_calls(code) == [
        "bpf_override_return",
        "bpf_probe_write_user",
        "bpf_send_signal",
        "bpf_send_signal_thread",
    ]
    assert bytecode.helpers(code) == {1, 36, 58, 109, 117}


def test_a_call_of_a_function_is_not_a_call_of_a_helper() -> None:
    code = instruction(0x85, bytecode.BPF_PSEUDO_CALL, 36) + EXIT
    assert bytecode.forbidden_calls(code) == []
    assert bytecode.has_subprograms(code)
    assert not bytecode.has_subprograms(instruction(0x85, immediate=36))


def test_half_an_instruction_is_an_error() -> None:
    with pytest.raises(ValueError, match="bytecode of 12 bytes is no whole number of instructions"):
        bytecode.helpers(bytes(12))
