"""`compile`: a configuration and a kernel, which need not run here -> a cache of artifacts for hosts without bcc."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from exporter import config
from exporter.binding.bind import BindingError, bind_all
from exporter.commands import check
from exporter.commands.exit_codes import EXIT_CONFIG, EXIT_OK, EXIT_RIGHTS, EXIT_RUNTIME, EXIT_USAGE
from exporter.config import bundled_dir
from exporter.kernel import vmlinuz
from exporter.kernel.btf import KernelBtf
from exporter.kernel.features import Kernel, version
from exporter.loading import artifact, other_kernel, target
from exporter.loading.compiling import compiler, prelude
from exporter.loading.other_kernel import OtherKernel
from exporter.loading.refusal import RefusedError
from exporter.loading.target import Target
from exporter.spec import Config, ProgramSpec, VariantSpec


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a variant.

    text     why there is no artifact, "" where there is one
    key      of the artifact in the cache
    assumed  what the kernel's types do not tell
    """

    program: str
    variant: str
    state: Literal["compiled", "in the cache", "not needed", "refused"]
    text: str = ""
    key: str = ""
    assumed: tuple[str, ...] = ()


class KernelError(Exception):
    """The kernel to compile for is not known: "OPTION FILE: cause (hint)"."""


@contextmanager
def kernel_of(
    image: Path | None, btf: Path | None, release: str | None = None, arch: str | None = None
) -> Iterator[Target]:
    """The kernel to compile for: the one in a vmlinuz, or whose raw BTF is in a file, else the running one.

    release, arch  as uname -r and -m say them there; None: what the vmlinuz, or the BTF, says. A BTF file has no
                   release
    KernelError.
    """
    try:
        if image:
            found = vmlinuz.read(image)
            with tempfile.NamedTemporaryFile(prefix="bpf-exporter-") as file:
                file.write(found.btf)
                file.flush()
                yield _fitting(f"--kernel {image}", Path(file.name), release or found.release, arch, found.arch)
        elif btf:
            with KernelBtf(btf) as types:
                known = other_kernel.arch_of(types)
            if not release:
                raise KernelError(f"--btf {btf}: a BTF file has no release (--release: what uname -r says there)")
            if not known:
                raise KernelError(f"--btf {btf}: types of neither x86_64 nor aarch64, which are those that are known")
            yield _fitting(f"--btf {btf}", btf, release, arch, known)
        else:
            yield target.this_host()
    except vmlinuz.KernelFileError as error:
        raise KernelError(f"--kernel {error}") from error
    except OSError as error:
        option = f"--kernel {image}" if image else f"--btf {btf}"
        raise KernelError(f"{option}: {error.strerror or error}") from error


def _fitting(option: str, btf: Path, release: str, arch: str | None, found: str) -> Target:
    if arch not in (None, found):
        raise KernelError(f"{option}: a kernel for {found}, not for {arch} (leave --arch out)")
    try:
        version(release)
    except ValueError as error:
        raise KernelError(f"--release: {error} (what uname -r says there)") from error
    return target.of_btf(btf, release, found)


def fill(config: Config, wanted: Target, cache: artifact.Cache) -> Iterator[Made]:
    """Put an artifact of every variant that the kernel could use into the cache, so that one that fails there has its
    successor. What the kernel lacks of `requires` is taken from its types; what they do not tell is assumed."""
    with KernelBtf(wanted.btf_path) as types:
        other = OtherKernel(types, wanted.release, wanted.arch)
        for program in config.programs:
            for variant in program.variants if program.enabled else ():
                answer = _lacking(other, program, variant)
                if answer.lacks:
                    text = "; ".join(answer.lacks)
                    yield Made(program.name, variant.name, "not needed", text, assumed=answer.assumed)
                else:
                    yield replace(make(program, variant, wanted, cache), assumed=answer.assumed)


def _lacking(other: OtherKernel, program: ProgramSpec, variant: VariantSpec) -> other_kernel.Answer:
    return other_kernel.all_of(lambda: other.requires(program.requires), lambda: other.requires(variant.requires))


def make(program: ProgramSpec, variant: VariantSpec, wanted: Target, cache: artifact.Cache) -> Made:
    """Put the artifact of one variant into the cache, if it is not there."""
    made = Made(program.name, variant.name, "refused")
    shared = (bundled_dir() / "include" / "exporter.h").read_text()
    kernel = replace(Kernel(), machine=wanted.arch)  # a probed file is this host's, and of that architecture
    try:
        header = prelude.header(shared, program, variant, kernel, wanted)
        key = artifact.key(program, variant, wanted, header)
        found = cache.get(key, compiler.bcc_version())
        compiled = found or compiler.compile_variant(program, variant, wanted, header, cache.headers)
        bind_all(program.metrics, compiled.maps, program.maps)
        if not found:
            cache.put(compiled)
    except (compiler.CompileError, RefusedError) as error:
        return replace(made, text=error.text)
    except BindingError as error:
        return replace(made, text="; ".join(error.messages))
    except OSError as error:
        return replace(made, text=f"write to {cache.directory}: {error.strerror or error}")
    return replace(made, state="in the cache" if found else "compiled", key=key)


def command(options: argparse.Namespace) -> int:
    """`bpf-exporter compile`: fill the cache of --out and print what became of each variant. The exit code."""

    path = options.file or options.config_file
    loaded = _load(options, path, enforce_owner=os.geteuid() == 0)
    if loaded is None:
        return EXIT_CONFIG
    if refusal := check.obstacle(needs_bcc=True):
        print(f"bpf-exporter compile: {refusal}", file=sys.stderr)
        return EXIT_RIGHTS
    made: list[Made] = []
    try:
        cache = artifact.Cache(options.out)
        with kernel_of(options.kernel, options.btf, options.release, options.arch) as wanted:
            kernel = f"linux {wanted.release} {wanted.arch}"
            for each in fill(loaded.config, wanted, cache):
                made.append(each)
                name = f"{each.program} {each.variant}".strip()
                print(f"{name}: {each.state}" + (f" ({each.text})" if each.text else ""), flush=True)
                for line in each.assumed:
                    print(f"    assumed: {line}")
    except KernelError as error:
        print(f"bpf-exporter compile: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"bpf-exporter compile: --out {options.out}: {error.strerror or error}", file=sys.stderr)
        return EXIT_RUNTIME
    having = {each.program for each in made if each.key}
    without = sorted({each.program for each in made if each.state == "refused"} - having)
    print(f"{options.out}: {sum(bool(each.key) for each in made)} artifacts for {kernel}, of {len(having)} programs")
    if without:
        print(f"bpf-exporter compile: nothing for {', '.join(without)}", file=sys.stderr)
    return EXIT_CONFIG if without else EXIT_OK


def _load(
    options: argparse.Namespace, path: Path, *, enforce_owner: bool, strict: bool = False
) -> config.LoadedConfig | None:
    """The configuration, its warnings printed; None if it has errors, every one of which was printed."""
    try:
        loaded = config.load(path, trust_owner=options.trust_owner, strict=strict, enforce_owner=enforce_owner)
    except config.ConfigErrors as errors:
        print(errors, file=sys.stderr)
        return None
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return loaded
