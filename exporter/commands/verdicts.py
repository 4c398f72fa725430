"""Programs of a configuration -> a verdict on each: compiled, loaded and detached at once, or judged by another
kernel's types."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.binding.bind import approximations
from exporter.binding.map_memory import map_memory, size_text
from exporter.kernel import cpus
from exporter.kernel.btf import KernelBtf
from exporter.loading import build, load_program, other_kernel, requires, target
from exporter.loading.artifact import Cache
from exporter.loading.attaching.attach_points import ABSENT
from exporter.loading.build import Host
from exporter.loading.other_kernel import OtherKernel
from exporter.loading.refusal import RefusedError
from exporter.loading.target import TargetError
from exporter.program import Map, Reason, State
from exporter.spec import Config, ProgramSpec, VariantSpec


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a program, or on one of its variants.

    state       compiled, not compiled (requires), refused; of a program that was loaded its State; for another kernel's
                types used (the first variant that the kernel can use), compiled (a later one that it could use as
                well), not usable, not known (the variant does not compile without the types of modules, which no other
                kernel's BTF has)
    text        the cause, or what the program cannot do exactly; "" where nothing is wrong
    assumed     what another kernel's types do not tell
    map_memory  bytes of kernel memory that the maps take here when they are full; 0 where no map was compiled or loaded
    """

    program: str
    variant: str
    ok: bool
    state: str
    reason: Reason = Reason.NONE
    text: str = ""
    assumed: tuple[str, ...] = ()
    map_memory: int = 0


def of_compiling(config: Config) -> list[Verdict]:
    """Compile every variant of every enabled program for the running kernel and bind its metrics. A variant whose
    `requires` this kernel does not meet is not compiled."""
    with _host(config, target.this_host()) as host:
        return [_compiled(program, variant, host) for program in _enabled(config) for variant in program.variants]


def of_loading(config: Config) -> list[Verdict]:
    """Load and attach every program as `run` does, and detach it at once."""
    with _host(config, target.this_host()) as host:
        return [_loaded(program, host) for program in config.programs]


def of_another_kernel(config: Config, btf: Path, release: str | None, arch: str | None) -> list[Verdict]:
    """Judge which variant of each program another kernel uses, as far as its types tell, and why none before it.

    btf      raw BTF of that kernel, as its /sys/kernel/btf/vmlinux has it
    release  as `uname -r` says it there; None: the running kernel's if the types are the same, else not known
    arch     as `uname -m` says it there; None: what the types say

    TargetError where these do not fit together.
    """
    try:
        with (
            target.of_options(None, btf, release, arch) as wanted,
            KernelBtf(btf) as types,
            _host(config, wanted) as host,
        ):
            other = OtherKernel(types, wanted.release if wanted.knows_release else None, wanted.arch)
            return [verdict for program in _enabled(config) for verdict in _judged(program, other, host)]
    except OSError as error:
        raise TargetError(f"--btf {btf}: {error.strerror or error}") from error


def map_memory_text(verdicts: Sequence[Verdict]) -> str:
    """Return how much kernel memory the maps of all programs take, each with its largest variant; "" without maps."""
    largest: dict[str, int] = {}
    for verdict in verdicts:
        largest[verdict.program] = max(verdict.map_memory, largest.get(verdict.program, 0))
    if not any(largest.values()):
        return ""
    most = sorted(largest, key=lambda name: -largest[name])[:3]
    named = ", ".join(f"{name} {size_text(largest[name])}" for name in most)
    together, count = size_text(sum(largest.values())), cpus.possible()
    return f"maps: {together} of kernel memory when they are full, with {count} possible CPUs (most: {named})"


def _enabled(config: Config) -> list[ProgramSpec]:
    return [program for program in config.programs if program.enabled]


@contextmanager
def _host(config: Config, wanted: target.Target) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-") as scratch:
        yield Host(wanted, Cache(Path(scratch)), map_memory=config.limits.map_memory)


def _compiled(program: ProgramSpec, variant: VariantSpec, host: Host) -> Verdict:
    verdict = Verdict(program.name, variant.name, True, "compiled")
    if unmet := [*requires.unmet(program.requires, host.kernel), *requires.unmet(variant.requires, host.kernel)]:
        text = f"{program.name}: requires {'; requires '.join(unmet)}"
        return replace(verdict, state="not compiled", reason=Reason.REQUIRES, text=text)
    try:
        compiled, _ = build.build(program, variant, host)
        build.bind(program, compiled.maps)
    except RefusedError as error:
        text = f"{program.name}: {error.text}"
        return replace(verdict, ok=False, state="refused", reason=error.reason, text=text)
    text = approximations(program.metrics, compiled.maps)
    return replace(verdict, text=text, map_memory=_map_memory(compiled.maps))


def _loaded(spec: ProgramSpec, host: Host) -> Verdict:
    program, descriptors = load_program.load_program(spec, host)
    descriptors.close()
    text = program.text or approximations(spec.metrics, program.maps)
    is_ok, memory = program.state is not State.FAILED, _map_memory(program.maps)
    return Verdict(program.name, program.variant, is_ok, program.state.value, program.reason, text, map_memory=memory)


def _map_memory(maps: Sequence[Map]) -> int:
    return sum(map_memory(each, cpus.possible()) for each in maps)


def _judged(program: ProgramSpec, other: OtherKernel, host: Host) -> list[Verdict]:
    """Return a verdict on each variant, the first usable one as used. Without one, what another kernel lacks is wrong,
    unless it is only `requires`, or the program is optional and has no attach point there."""
    everywhere = other.requires(program.requires)
    found = [_variant_judged(program, variant, everywhere, other, host) for variant in program.variants]
    if used := next((verdict for verdict in found if verdict.state == "compiled"), None):
        return [replace(verdict, state="used") if verdict is used else verdict for verdict in found]
    expected = {Reason.REQUIRES} | (ABSENT if program.optional else set())
    return [replace(verdict, ok=verdict.reason in expected or verdict.state == "not known") for verdict in found]


def _variant_judged(
    program: ProgramSpec, variant: VariantSpec, everywhere: other_kernel.Answer, other: OtherKernel, host: Host
) -> Verdict:
    modules = [*program.requires.module, *variant.requires.module]
    answer = other_kernel.all_of(
        lambda: everywhere, lambda: other.requires(variant.requires), lambda: other.attach_points(variant, modules)
    )
    verdict = Verdict(program.name, variant.name, True, "not usable", answer.reason, assumed=answer.assumed)
    if not answer.lacks:
        try:
            compiled, _ = build.build(program, variant, host)
            build.bind(program, compiled.maps)
            answer = other.helpers(compiled.functions)
        except RefusedError as error:
            state = "not known" if modules and error.reason is Reason.COMPILER else "refused"
            return replace(verdict, state=state, reason=error.reason, text=f"{program.name}: {error.text}")
    if answer.lacks:
        return replace(verdict, reason=answer.reason, text=f"{program.name}: {'; '.join(answer.lacks)}")
    return replace(verdict, state="compiled")
