"""Members of the kernel's structs are read where BTF has them: by the code itself, not only by clang's asserts."""

from __future__ import annotations

import struct

import pytest

from exporter.kernel.btf import KernelBtf
from exporter.loading import build
from exporter.loading.artifact import Artifact
from exporter.loading.build import Host
from tests.kernel.programs import compile_all, point, spec

ADD_IMMEDIATE = 0x07  # BPF_ALU64 | BPF_ADD | BPF_K
INSTRUCTION = struct.Struct("=BBhi")

# Those with padding to cache lines, which libbpf writes as runs of bit-fields, and those that programs read most.
STRUCTS = ("rq", "cfs_rq", "sched_entity", "task_struct", "cgroup", "net_device", "request_queue", "sock", "tcp_sock")


def compiled(text: str, first: str, host: Host) -> Artifact:
    program = spec(text, [point("raw_tracepoint", "sys_enter", first)])
    compile_all(program, host)
    artifact, from_cache = build.build(program, program.variants[0], host)
    assert from_cache
    return artifact


def added(instructions: bytes) -> int:
    """What the code adds to a pointer."""
    return sum(immediate for code, _, _, immediate in INSTRUCTION.iter_unpack(instructions) if code == ADD_IMMEDIATE)


@pytest.mark.parametrize("name", STRUCTS)
def test_code_has_the_offsets_of_btf(name: str, shared_host: Host) -> None:
    with KernelBtf(shared_host.target.btf_path) as btf:
        offsets = {m.name: m.offset // 8 for m in btf.struct_members(name) if m.name and not m.bits}
    functions = (
        f"int at_{member}(struct bpf_raw_tracepoint_args *ctx)\n"
        f"{{\n\treturn (unsigned long)&((struct {name} *)ctx->args[0])->{member};\n}}\n"
        for member in offsets
    )
    found = compiled("".join(functions), f"at_{next(iter(offsets))}", shared_host)
    assert {f.name.removeprefix("at_"): added(f.instructions) for f in found.functions} == offsets
