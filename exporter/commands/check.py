"""`check` beyond the files: each program compiled for a kernel, or loaded on this one and taken away at once."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from exporter import config
from exporter.binding.bind import BindingError, approximations, bind_all
from exporter.binding.map_memory import map_memory, size_text
from exporter.commands.exit_codes import EXIT_CONFIG, EXIT_LOAD, EXIT_OK, EXIT_RIGHTS, EXIT_USAGE
from exporter.config import bundled_dir
from exporter.kernel import cpus, rights
from exporter.kernel.btf import KernelBtf
from exporter.kernel.features import Kernel, version
from exporter.loading import artifact, load_program, other_kernel, requires, target
from exporter.loading.attaching.attach_points import ABSENT
from exporter.loading.compiling import compiler, prelude
from exporter.loading.lint import rules
from exporter.loading.load_program import Host
from exporter.loading.other_kernel import OtherKernel
from exporter.loading.refusal import RefusedError
from exporter.program import Map, Reason, State
from exporter.spec import Config, ProgramSpec, VariantSpec
from exporter.supervisor import read_web_config


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a program, or of one variant of it.

    state    compiled, not compiled (requires), refused; with `load` the program's State; for another kernel's types
             used (the first variant that nothing speaks against), compiled (it would do as well), not usable, not known
             (it does not compile without the types of modules, which no other kernel's BTF has)
    text     why, or what it cannot do exactly; "" where all is well
    assumed  what is not known of another kernel and taken to be so
    map_memory  bytes of kernel memory that its maps take here when they are full; 0 where it was not compiled or loaded
    """

    program: str
    variant: str
    ok: bool
    state: str
    reason: Reason = Reason.NONE
    text: str = ""
    assumed: tuple[str, ...] = ()
    map_memory: int = 0


class TypesError(Exception):
    """A BTF file that cannot be read, or is not of the architecture that it is said to be."""


def map_memory_text(verdicts: Sequence[Verdict]) -> str:
    """How much kernel memory the maps of all programs take, of each its largest variant; "" where none was made."""
    largest: dict[str, int] = {}
    for verdict in verdicts:
        largest[verdict.program] = max(verdict.map_memory, largest.get(verdict.program, 0))
    if not any(largest.values()):
        return ""
    most = sorted(largest, key=lambda name: -largest[name])[:3]
    named = ", ".join(f"{name} {size_text(largest[name])}" for name in most)
    together, count = size_text(sum(largest.values())), cpus.possible()
    return f"maps: {together} of kernel memory when they are full, with {count} possible CPUs (most: {named})"


def _map_memory(maps: Sequence[Map]) -> int:
    return sum(map_memory(each, cpus.possible()) for each in maps)


def lint_all(config: Config) -> list[str]:
    """What the C texts must not do, found without a compiler: "FILE:LINE: what is wrong; what to write instead"."""
    return [line for program in config.programs for line in rules.findings(program)]


def obstacle(*, needs_bcc: bool) -> str:
    """Why this process can look at the files only; "" if it can go on. bcc makes the maps of what it compiles."""
    if missing := rights.missing_to_load():
        return f"compiling and loading need {', '.join(missing)} (run as root)"
    if needs_bcc and compiler.bcc_version() is None:
        return "bcc is not installed (apt-get install python3-bpfcc)"
    return ""


def verdicts(config: Config, *, load: bool) -> list[Verdict]:
    """Compile for this kernel; or, with `load`, load and attach on it."""
    with _host(config, target.this_host()) as host:
        return load_all(config, host) if load else compile_all(config, host)


def verdicts_for(config: Config, btf: Path, release: str | None, arch: str | None) -> list[Verdict]:
    """Which variant of each program a kernel would use, as far as its types tell, and why none before it.

    btf      its raw BTF, as /sys/kernel/btf/vmlinux there has it
    release  as uname -r says it there; None: this kernel's if the types are its own, else not known
    arch     as uname -m says it there; None: what the types say
    TypesError.
    """
    try:
        wanted, known = _target(btf, release, arch)
        with KernelBtf(btf) as types, _host(config, wanted) as host:
            other = OtherKernel(types, wanted.release if known else None, wanted.arch)
            programs = [program for program in config.programs if program.enabled]
            return [verdict for program in programs for verdict in _elsewhere(program, other, host)]
    except OSError as error:
        raise TypesError(f"--btf {btf}: {error.strerror or error}") from error


@contextmanager
def _host(config: Config, wanted: target.Target) -> Iterator[Host]:
    header = (bundled_dir() / "include" / "exporter.h").read_text()
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-") as scratch:
        kernel = replace(Kernel(), machine=wanted.arch)  # whose registers hold the arguments of USDT probes
        yield Host(wanted, artifact.Cache(Path(scratch)), header, kernel, config.limits.map_memory)


def _target(btf: Path, release: str | None, arch: str | None) -> tuple[target.Target, bool]:
    """What to compile for, and whether its release is known. One that is not known is this kernel's version, under a
    name that nothing of this kernel is taken for."""
    with KernelBtf(btf) as types:
        found = other_kernel.arch_of(types)
    if not found:
        raise TypesError(f"--btf {btf}: types of neither x86_64 nor aarch64, which are the ones that are known")
    if release is not None:
        try:
            version(release)
        except ValueError as error:
            raise TypesError(f"--release: {error} (as uname -r says it there: 6.1.0-56-amd64)") from error
    if arch not in (None, found):
        raise TypesError(f"--btf {btf}: these are the types of {found}, not of {arch} (leave --arch out)")
    wanted = target.of_btf(btf, release or f"{'.'.join(map(str, Kernel().version))}-unknown", found)
    if release is None and wanted.btf_sha256 == target.this_host().btf_sha256:
        return target.this_host(), True
    return wanted, release is not None


def _elsewhere(program: ProgramSpec, other: OtherKernel, host: Host) -> list[Verdict]:
    """The verdict on every variant, the one in use marked. If there is none, what speaks against the variants is what
    speaks against the program, unless that is only `requires`, or it is optional and has no place there."""
    everywhere = other.requires(program.requires)
    found = [_variant_elsewhere(program, variant, everywhere, other, host) for variant in program.variants]
    if used := next((verdict for verdict in found if verdict.state == "compiled"), None):
        return [replace(verdict, state="used") if verdict is used else verdict for verdict in found]
    expected = {Reason.REQUIRES} | (ABSENT if program.optional else set())
    return [replace(verdict, ok=verdict.reason in expected or verdict.state == "not known") for verdict in found]


def _variant_elsewhere(
    program: ProgramSpec, variant: VariantSpec, everywhere: other_kernel.Answer, other: OtherKernel, host: Host
) -> Verdict:
    modules = [*program.requires.module, *variant.requires.module]
    answer = other_kernel.all_of(
        lambda: everywhere, lambda: other.requires(variant.requires), lambda: other.places(variant, modules)
    )
    verdict = Verdict(program.name, variant.name, True, "not usable", answer.reason, assumed=answer.assumed)
    if not answer.lacks:
        try:
            answer = other.helpers(_artifact(program, variant, host).functions)
        except _UnfitError as error:
            state = "not known" if modules and error.reason is Reason.COMPILER else "refused"
            return replace(verdict, state=state, reason=error.reason, text=f"{program.name}: {error.text}")
    if answer.lacks:
        return replace(verdict, reason=answer.reason, text=f"{program.name}: {'; '.join(answer.lacks)}")
    return replace(verdict, state="compiled")


def compile_all(config: Config, host: Host) -> list[Verdict]:
    """Compile every variant of every enabled program for this kernel and bind its metrics. One whose `requires` it does
    not meet is not compiled."""
    return [
        _compiled(program, variant, host)
        for program in config.programs
        if program.enabled
        for variant in program.variants
    ]


def _compiled(program: ProgramSpec, variant: VariantSpec, host: Host) -> Verdict:
    if unmet := [*requires.unmet(program.requires, host.kernel), *requires.unmet(variant.requires, host.kernel)]:
        text = f"{program.name}: requires {'; requires '.join(unmet)}"
        return Verdict(program.name, variant.name, True, "not compiled", Reason.REQUIRES, text)
    try:
        compiled = _artifact(program, variant, host)
    except _UnfitError as error:
        return Verdict(program.name, variant.name, False, "refused", error.reason, f"{program.name}: {error.text}")
    text = approximations(program.metrics, compiled.maps)
    return Verdict(program.name, variant.name, True, "compiled", text=text, map_memory=_map_memory(compiled.maps))


class _UnfitError(Exception):
    """A variant that does not compile, or whose maps its metrics do not fit."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def _artifact(program: ProgramSpec, variant: VariantSpec, host: Host) -> artifact.Artifact:
    """The variant compiled, its metrics bound. _UnfitError."""
    try:
        header = prelude.header(host.header, program, variant, host.kernel, host.target)
        compiled = compiler.compile_variant(program, variant, host.target, header, host.cache.headers)
        bind_all(program.metrics, compiled.maps, program.maps)
    except (compiler.CompileError, RefusedError) as error:
        raise _UnfitError(error.reason, error.text) from error
    except BindingError as error:
        raise _UnfitError(Reason.BINDING, "; ".join(error.messages)) from error
    return compiled


def load_all(config: Config, host: Host) -> list[Verdict]:
    """Load and attach every enabled program as `run` would, and detach it at once."""
    verdicts = []
    for spec in config.programs:

        def fits(maps: Sequence[Map], spec: ProgramSpec = spec) -> None:
            bind_all(spec.metrics, maps, spec.maps)

        program, descriptors = load_program.load_program(spec, host, fits)
        descriptors.close()
        ok = program.state is not State.FAILED
        text = program.text or approximations(spec.metrics, program.maps)
        verdicts.append(
            Verdict(
                program.name, program.variant, ok, program.state.value, program.reason, text,
                map_memory=_map_memory(program.maps),
            )
        )  # fmt: skip
    return verdicts


def command(options: argparse.Namespace) -> int:
    """`bpf-exporter check`: print every mistake and what becomes of each program. The exit code."""
    path = options.file or options.config_file
    try:
        loaded = config.load(path, trust_owner=options.trust_owner, strict=options.strict)
        errors = [str(line) for line in lint_all(loaded.config)]
    except config.ConfigErrors as wrong:
        loaded, errors = None, [str(finding) for finding in wrong.findings]
    warnings = [str(warning) for warning in loaded.warnings] if loaded else []
    if options.web_file:
        found = read_web_config.read(options.web_file, options.trust_owner)
        errors += [f"{place}: {text}" for place, text in found.mistakes]
        warnings += [f"{place}: {text}" for place, text in found.warnings]
    if options.btf and options.load:
        print("bpf-exporter check: --load is for this kernel, --btf for another: one of them", file=sys.stderr)
        return EXIT_USAGE
    if options.btf and not options.btf.is_file():
        print(f"bpf-exporter check: --btf {options.btf}: no such file", file=sys.stderr)
        return EXIT_USAGE
    outcome: list[Verdict] = []
    note, code = "", EXIT_CONFIG if errors else EXIT_OK
    if loaded and not errors:
        note = obstacle(needs_bcc=not options.load)
        if note and (options.load or options.btf):
            code, errors = EXIT_RIGHTS, [note]
        elif not note:
            try:
                outcome = (
                    verdicts_for(loaded.config, options.btf, options.release, options.arch)
                    if options.btf
                    else verdicts(loaded.config, load=options.load)
                )
            except TypesError as error:
                print(f"bpf-exporter check: {error}", file=sys.stderr)
                return EXIT_USAGE
            if not all(verdict.ok for verdict in outcome):
                code = EXIT_LOAD if options.load or options.btf else EXIT_CONFIG
    if options.json:
        print(json.dumps({"file": str(path), "errors": errors, "warnings": warnings, "note": note,
                          "programs": [asdict(verdict) for verdict in outcome]}, indent=2))  # fmt: skip
        return code
    for line in errors:
        print(line, file=sys.stderr)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    for verdict in outcome:
        name = f"{verdict.program} {verdict.variant}".strip()
        print(f"{name}: {verdict.state}" + (f" ({verdict.text})" if verdict.text else ""))
        for line in verdict.assumed:
            print(f"    assumed: {line}")
    if loaded and code == EXIT_OK:
        programs = loaded.config.programs
        metrics = sum(metric.enabled for program in programs for metric in program.metrics)
        print(f"{path}: {len(programs)} programs, {metrics} metrics, {len(loaded.files)} files: no mistakes found")
        if memory := map_memory_text(outcome):
            print(memory)
        if note:
            print(f"only the files were checked: {note}")
    return code
