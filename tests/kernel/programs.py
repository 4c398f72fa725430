"""Small real programs for tests: compiled by bcc in a child of their own, loaded by the test."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.kernel.features import Kernel
from exporter.loading import artifact, build
from exporter.loading.build import Host
from exporter.loading.target import this_host
from exporter.spec import AttachSpec, MapOptions, ProgramSpec, Requirements, VariantSpec
from tests.waiting import fork, reap

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "programs/include/exporter.h").read_text()
NR_GETPPID = {"x86_64": 110, "aarch64": 173}[os.uname().machine]

# Counts getppid(2) by process, at each kind of attach point that every supported kernel has. One call of os.getppid()
# is one such call, and tests look at their own process only: others may use the machine meanwhile.
COUNT_GETPPID = """
BPF_HASH(calls, u32, u64, 10240);

static inline int count(long nr)
{
	u32 process = bpf_get_current_pid_tgid() >> 32;
	u64 zero = 0;

	if (nr == NR_GETPPID)
		add(calls.lookup_or_try_init(&process, &zero), 1, LOST(calls));
	return 0;
}

int on_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return count(ctx->args[1]);
}

int on_tracepoint(struct trace_event_raw_sys_enter *ctx)
{
	return count(ctx->id);
}

BPF_PROG(on_btf, struct pt_regs *regs, long nr)
{
	return count(nr);
}

int on_function(struct pt_regs *ctx)
{
	return count(NR_GETPPID);
}

BPF_PROG(on_return, struct pt_regs *regs)
{
	return count(NR_GETPPID);
}
"""


def point(kind: str, target: str, function: str, optional: bool = False) -> AttachSpec:
    return AttachSpec(kind=kind, targets=[target], function=function, optional=optional)


def spec(
    text: str,
    *variants: VariantSpec | list[AttachSpec],
    name: str = "test",
    requires: Requirements | None = None,
    optional: bool = False,
    maps: dict[str, MapOptions] | None = None,
) -> ProgramSpec:
    """A program without metrics; a bare list of points is a program's `attach:`."""
    return ProgramSpec(
        name=name,
        optional=optional,
        defines={"NR_GETPPID": NR_GETPPID},
        requires=requires or Requirements(),
        variants=[v if isinstance(v, VariantSpec) else VariantSpec(attach=v) for v in variants],
        maps=maps or {},
        metrics=[],
        source=Path("test.c"),
        text=text,
    )


def host(directory: Path) -> Host:
    return Host(this_host(), artifact.Cache(directory), HEADER, Kernel())


def compile_all(program: ProgramSpec, host: Host) -> None:
    """Put the artifacts of all variants into the host's cache. bcc runs in a child: its maps and memory go with it."""

    def compile_variants() -> None:
        os.nice(10)
        for variant in program.variants:
            compiled, from_cache = build.build(program, variant, host)
            if not from_cache:
                host.cache.put(compiled)

    assert reap(fork(compile_variants)) == 0, "compiling failed, see the captured output"
