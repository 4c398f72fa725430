"""The commands that start no daemon, from their arguments on: check, compile, doctor."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from exporter import config
from exporter.exits import EXIT_CONFIG, EXIT_LOAD, EXIT_OK, EXIT_RIGHTS, EXIT_RUNTIME, EXIT_USAGE


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


def check(options: argparse.Namespace) -> int:
    from exporter import checking, web_configuration  # bcc's part is imported only where it is needed

    path = options.file or options.config_file
    try:
        loaded = config.load(path, trust_owner=options.trust_owner, strict=options.strict)
        errors = [str(line) for line in checking.lint_all(loaded.config)]
    except config.ConfigErrors as wrong:
        loaded, errors = None, [str(finding) for finding in wrong.findings]
    warnings = [str(warning) for warning in loaded.warnings] if loaded else []
    if options.web_file:
        found = web_configuration.read(options.web_file, options.trust_owner)
        errors += [f"{place}: {text}" for place, text in found.mistakes]
        warnings += [f"{place}: {text}" for place, text in found.warnings]
    if options.btf and options.load:
        print("bpf-exporter check: --load is for this kernel, --btf for another: one of them", file=sys.stderr)
        return EXIT_USAGE
    if options.btf and not options.btf.is_file():
        print(f"bpf-exporter check: --btf {options.btf}: no such file", file=sys.stderr)
        return EXIT_USAGE
    verdicts: list[checking.Verdict] = []
    note, code = "", EXIT_CONFIG if errors else EXIT_OK
    if loaded and not errors:
        note = checking.obstacle(needs_bcc=not options.load)
        if note and (options.load or options.btf):
            code, errors = EXIT_RIGHTS, [note]
        elif not note:
            try:
                verdicts = (
                    checking.verdicts_for(loaded.config, options.btf, options.release, options.arch)
                    if options.btf
                    else checking.verdicts(loaded.config, load=options.load)
                )
            except checking.TypesError as error:
                print(f"bpf-exporter check: {error}", file=sys.stderr)
                return EXIT_USAGE
            if not all(verdict.ok for verdict in verdicts):
                code = EXIT_LOAD if options.load or options.btf else EXIT_CONFIG
    if options.json:
        print(json.dumps({"file": str(path), "errors": errors, "warnings": warnings, "note": note,
                          "programs": [asdict(verdict) for verdict in verdicts]}, indent=2))  # fmt: skip
        return code
    for line in errors:
        print(line, file=sys.stderr)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    for verdict in verdicts:
        name = f"{verdict.program} {verdict.variant}".strip()
        print(f"{name}: {verdict.state}" + (f" ({verdict.text})" if verdict.text else ""))
        for line in verdict.assumed:
            print(f"    assumed: {line}")
    if loaded and code == EXIT_OK:
        programs = loaded.config.programs
        metrics = sum(metric.enabled for program in programs for metric in program.metrics)
        print(f"{path}: {len(programs)} programs, {metrics} metrics, {len(loaded.files)} files: no mistakes found")
        if memory := checking.map_memory_text(verdicts):
            print(memory)
        if note:
            print(f"only the files were checked: {note}")
    return code


def compile_programs(options: argparse.Namespace) -> int:
    from exporter import checking, compiling
    from exporter.loading.artifact import Cache

    path = options.file or options.config_file
    loaded = _load(options, path, enforce_owner=os.geteuid() == 0)
    if loaded is None:
        return EXIT_CONFIG
    if refusal := checking.obstacle(needs_bcc=True):
        print(f"bpf-exporter compile: {refusal}", file=sys.stderr)
        return EXIT_RIGHTS
    made: list[compiling.Made] = []
    try:
        cache = Cache(options.out)
        with compiling.kernel_of(options.kernel, options.btf, options.release, options.arch) as wanted:
            kernel = f"linux {wanted.release} {wanted.arch}"
            for each in compiling.fill(loaded.config, wanted, cache):
                made.append(each)
                name = f"{each.program} {each.variant}".strip()
                print(f"{name}: {each.state}" + (f" ({each.text})" if each.text else ""), flush=True)
                for line in each.assumed:
                    print(f"    assumed: {line}")
    except compiling.KernelError as error:
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


def doctor(options: argparse.Namespace) -> int:
    from exporter import doctor

    lines = list(doctor.examine())
    if options.json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
    else:
        for line in lines:
            mark = {"ok": " ", "note": "-", "problem": "!"}[line.level]
            print(f"{mark} {line.subject}: {line.found}" + (f"\n    {line.advice}" if line.advice else ""))
    return EXIT_RUNTIME if any(line.level == "problem" for line in lines) else EXIT_OK
