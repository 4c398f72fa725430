"""`compile`: a configuration and a kernel, which need not run here -> a cache of artifacts for hosts without bcc."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from exporter import config
from exporter.commands.check import refusal_to_compile
from exporter.commands.exit_codes import EXIT_CONFIG, EXIT_OK, EXIT_RIGHTS, EXIT_RUNTIME, EXIT_USAGE
from exporter.commands.printing import print_findings, print_variant
from exporter.kernel.btf import KernelBtf
from exporter.loading import build, other_kernel, target
from exporter.loading.artifact import Cache
from exporter.loading.build import Host
from exporter.loading.other_kernel import OtherKernel
from exporter.loading.refusal import RefusedError
from exporter.loading.target import Target, TargetError
from exporter.spec import Config, ProgramSpec, VariantSpec


@dataclass(frozen=True, slots=True)
class Made:
    """The result for one variant.

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


def fill(config: Config, wanted: Target, cache: Cache) -> Iterator[Made]:
    """Put an artifact of every variant that the kernel could use into the cache, so that a variant that fails there has
    a successor. What the kernel lacks of `requires` is taken from its types; what they do not tell is assumed.
    TargetError where the types cannot be read."""
    try:
        types = KernelBtf(wanted.btf_path)
    except OSError as error:
        raise TargetError(f"types of the kernel: {error.strerror or error}") from error
    with types:
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


def make(program: ProgramSpec, variant: VariantSpec, wanted: Target, cache: Cache) -> Made:
    """Put the artifact of one variant into the cache, if it is not there."""
    made = Made(program.name, variant.name, "refused")
    try:
        compiled, from_cache = build.build(program, variant, Host(wanted, cache))
        build.bind(program, compiled.maps)
        if not from_cache:
            cache.put(compiled)
    except RefusedError as error:
        return replace(made, text=error.text)
    except OSError as error:
        return replace(made, text=f"write to {cache.directory}: {error.strerror or error}")
    return replace(made, state="in the cache" if from_cache else "compiled", key=compiled.key)


def command(options: argparse.Namespace) -> int:
    """Run `bpf-exporter compile`: fill the cache of --out and print what became of each variant. Return the exit
    code."""
    path = options.file or options.config_file
    try:
        loaded = config.load(path, trust_owner=options.trust_owner, enforce_owner=os.geteuid() == 0)
    except config.ConfigErrors as errors:
        print_findings(errors.findings, ())
        return EXIT_CONFIG
    print_findings((), loaded.warnings)
    if refusal := refusal_to_compile(needs_bcc=True):
        print(f"bpf-exporter compile: {refusal}", file=sys.stderr)
        return EXIT_RIGHTS
    made: list[Made] = []
    try:
        cache = Cache(options.out)
    except OSError as error:
        print(f"bpf-exporter compile: --out {options.out}: {error.strerror or error}", file=sys.stderr)
        return EXIT_RUNTIME
    try:
        if options.btf and not options.release:
            raise TargetError(f"--btf {options.btf}: a BTF file has no release (--release: what uname -r says there)")
        with target.of_options(options.kernel, options.btf, options.release, options.arch) as wanted:
            kernel = f"linux {wanted.release} {wanted.arch}"
            for each in fill(loaded.config, wanted, cache):
                made.append(each)
                print_variant(each.program, each.variant, each.state, each.text, each.assumed)
    except TargetError as error:
        print(f"bpf-exporter compile: {error}", file=sys.stderr)
        return EXIT_USAGE
    having = {each.program for each in made if each.key}
    without = sorted({each.program for each in made if each.state == "refused"} - having)
    print(f"{options.out}: {sum(bool(each.key) for each in made)} artifacts for {kernel}, of {len(having)} programs")
    if without:
        print(f"bpf-exporter compile: nothing for {', '.join(without)}", file=sys.stderr)
    return EXIT_CONFIG if without else EXIT_OK
