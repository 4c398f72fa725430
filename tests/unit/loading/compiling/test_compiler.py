"""The parts of the compiler that need no bcc."""

from __future__ import annotations

import struct

from exporter.kernel import bpf_insn
from exporter.loading.compiling.compiler import forbidden_calls


def call(number: int, source: int = 0) -> bytes:
    return struct.pack("<BBhi", bpf_insn.BPF_CALL, source << 4, 0, number)


def test_helpers_that_change_what_they_observe_are_found() -> None:
    code = b"".join(call(number) for number in (1, 109, 36, 58, 117, 36)) + bpf_insn.RETURN_0
    assert forbidden_calls(code) == [
        "bpf_override_return",
        "bpf_probe_write_user",
        "bpf_send_signal",
        "bpf_send_signal_thread",
    ]


def test_a_call_of_a_function_with_the_number_of_a_forbidden_helper_is_allowed() -> None:
    assert forbidden_calls(call(36, bpf_insn.BPF_PSEUDO_CALL)) == []
