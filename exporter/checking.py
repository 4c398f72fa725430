"""`check` beyond the files: each program compiled for a kernel, or loaded on this one and taken away at once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.binding import BindingError, bind_all
from exporter.config import bundled_dir, model
from exporter.kernel import rights
from exporter.kernel.features import Kernel
from exporter.loading import artifact, child, compiler, lint, prelude, requires, target
from exporter.loading.child import Host
from exporter.loading.refusal import RefusedError
from exporter.program import Map, Reason, State


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a program, or of one variant of it. `text` is "" where all is well."""

    program: str
    variant: str
    ok: bool
    state: str  # compiled, not compiled (requires), refused; with --load the program's State
    reason: Reason = Reason.NONE
    text: str = ""


def lint_all(config: model.Config) -> list[str]:
    """What the C texts must not do, found without a compiler: "FILE:LINE: what is wrong; what to write instead"."""
    return [line for program in config.programs for line in lint.findings(program)]


def obstacle(*, needs_bcc: bool) -> str:
    """Why this process can look at the files only; "" if it can go on. bcc makes the maps of what it compiles."""
    if missing := rights.missing_to_load():
        return f"compiling and loading need {', '.join(missing)} (run as root)"
    if needs_bcc and compiler.bcc_version() is None:
        return "bcc is not installed (apt-get install python3-bpfcc)"
    return ""


def verdicts(config: model.Config, *, load: bool, btf: Path | None, release: str, arch: str) -> list[Verdict]:
    """Compile, for this kernel or the one whose types are in `btf`; or, with `load`, load and attach on this one."""
    wanted = target.of_btf(btf, release, arch) if btf else target.this_host()
    header = (bundled_dir() / "include" / "exporter.h").read_text()
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-") as scratch:
        host = Host(wanted, artifact.Cache(Path(scratch)), header, Kernel(), config.map_memory)
        return load_all(config, host) if load else compile_all(config, host, this_kernel=btf is None)


def compile_all(config: model.Config, host: Host, *, this_kernel: bool) -> list[Verdict]:
    """Compile every variant of every enabled program for the host's target and bind its metrics.

    this_kernel  the target is the running kernel: a variant whose `requires` it does not meet is not compiled. Another
                 kernel's types cannot be asked everything, so for them every variant is compiled.
    """
    return [
        _compiled(program, variant, host, this_kernel=this_kernel)
        for program in config.programs
        if program.enabled
        for variant in program.variants
    ]


def _compiled(program: model.Program, variant: model.Variant, host: Host, *, this_kernel: bool) -> Verdict:
    unmet = [*requires.unmet(program.requires, host.kernel), *requires.unmet(variant.requires, host.kernel)]
    if this_kernel and unmet:
        text = f"{program.name}: requires {'; requires '.join(unmet)}"
        return Verdict(program.name, variant.name, True, "not compiled", Reason.REQUIRES, text)
    try:
        header = prelude.header(host.header, program, variant, host.kernel, host.target)
        compiled = compiler.compile_variant(program, variant, host.target, header, host.cache.headers)
        bind_all(program.metrics, compiled.maps, program.maps)
    except (compiler.CompileError, RefusedError) as error:
        return Verdict(program.name, variant.name, False, "refused", error.reason, f"{program.name}: {error.text}")
    except BindingError as error:
        text = f"{program.name}: {'; '.join(error.messages)}"
        return Verdict(program.name, variant.name, False, "refused", Reason.BINDING, text)
    return Verdict(program.name, variant.name, True, "compiled")


def load_all(config: model.Config, host: Host) -> list[Verdict]:
    """Load and attach every enabled program as `run` would, and detach it at once."""
    verdicts = []
    for spec in config.programs:

        def fits(maps: Sequence[Map], spec: model.Program = spec) -> None:
            bind_all(spec.metrics, maps, spec.maps)

        program, descriptors = child.load_program(spec, host, fits)
        child.close(descriptors)
        ok = program.state is not State.FAILED
        verdicts.append(Verdict(program.name, program.variant, ok, program.state.value, program.reason, program.text))
    return verdicts
