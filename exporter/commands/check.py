"""`check`: every mistake in a configuration, and as far as this host allows it what becomes of each program."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from exporter import config
from exporter.commands import verdicts
from exporter.commands.exit_codes import EXIT_CONFIG, EXIT_LOAD, EXIT_OK, EXIT_RIGHTS, EXIT_USAGE
from exporter.commands.printing import print_findings, print_variant
from exporter.commands.verdicts import Verdict
from exporter.ipc.protocol import WebConfigRead
from exporter.kernel import rights
from exporter.loading.compiling import compiler
from exporter.loading.lint import rules
from exporter.loading.target import TargetError
from exporter.supervisor.config_reader import read_in_child, read_web_config


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of `check`.

    config    None where a file has mistakes
    mistakes  in the files, each a sentence behind its position
    warnings  in the same form
    obstacle  why nothing was compiled or loaded; "" where something was, or there are mistakes
    is_asked  True if the command line asks whether programs run (--load, --btf): then an obstacle is an error
    verdicts  on each program, or on each of its variants
    """

    config: config.LoadedConfig | None
    mistakes: list[str]
    warnings: list[str]
    obstacle: str
    is_asked: bool
    verdicts: list[Verdict]

    @property
    def errors(self) -> list[str]:
        """Return what ends the command before any verdict."""
        return [self.obstacle] if self.obstacle and self.is_asked else self.mistakes

    @property
    def exit_code(self) -> int:
        """Return the code of the first kind of error that there is."""
        if self.mistakes:
            return EXIT_CONFIG
        if self.errors:
            return EXIT_RIGHTS
        if all(verdict.ok for verdict in self.verdicts):
            return EXIT_OK
        return EXIT_LOAD if self.is_asked else EXIT_CONFIG


def find(options: argparse.Namespace, path: Path) -> CheckResult:
    """Read the files, and compile, load or judge their programs if nothing is wrong. TargetError for --btf and the
    options beside it."""
    loaded, mistakes, warnings = _read(options, path)
    is_asked = bool(options.load or options.btf)
    obstacle = "" if mistakes or loaded is None else refusal_to_compile(needs_bcc=not options.load)
    found: list[Verdict] = []
    if loaded and not mistakes and not obstacle:
        if options.btf:
            found = verdicts.of_another_kernel(loaded.config, options.btf, options.release, options.arch)
        else:
            found = (verdicts.of_loading if options.load else verdicts.of_compiling)(loaded.config)
    return CheckResult(loaded, mistakes, warnings, obstacle, is_asked, found)


def refusal_to_compile(*, needs_bcc: bool) -> str:
    """Return why this process can only read the files; "" if it can go on. bcc makes the maps of what it compiles, so
    compiling needs the same rights as loading."""
    if refusal := rights.refusal_to_load():
        return refusal
    if needs_bcc and compiler.bcc_version() is None:
        return "bcc is not installed (apt-get install python3-bpfcc)"
    return ""


def _read(options: argparse.Namespace, path: Path) -> tuple[config.LoadedConfig | None, list[str], list[str]]:
    """Return the configuration, and mistakes and warnings of it, its C texts and the web configuration."""
    mistakes: list[str] = []
    warnings: list[str] = []
    loaded = None
    try:
        loaded = config.load(path, trust_owner=options.trust_owner, strict=options.strict)
        mistakes += [line for program in loaded.config.programs for line in rules.findings(program)]
        warnings += map(str, loaded.warnings)
    except config.ConfigErrors as errors:
        mistakes += map(str, errors.findings)
    if options.web_file:
        web = read_in_child(read_web_config, WebConfigRead, options.web_file, options.trust_owner)
        mistakes += map(": ".join, web.mistakes)
        warnings += map(": ".join, web.warnings)
    return loaded, mistakes, warnings


def print_json(result: CheckResult, path: Path) -> None:
    """Print the result as one JSON object."""
    document = {"file": str(path), "errors": result.errors, "warnings": result.warnings, "note": result.obstacle}
    print(json.dumps({**document, "programs": [asdict(verdict) for verdict in result.verdicts]}, indent=2))


def print_text(result: CheckResult, path: Path) -> None:
    """Print the result for a person: errors and warnings to standard error, the rest to standard output."""
    print_findings(result.errors, result.warnings)
    for each in result.verdicts:
        print_variant(each.program, each.variant, each.state, each.text, each.assumed)
    if result.config is None or result.exit_code != EXIT_OK:
        return
    programs = result.config.config.programs
    metrics = sum(metric.enabled for program in programs for metric in program.metrics)
    print(f"{path}: {len(programs)} programs, {metrics} metrics, {len(result.config.files)} files: no mistakes found")
    if memory := verdicts.map_memory_text(result.verdicts):
        print(memory)
    if result.obstacle:
        print(f"only the files were checked: {result.obstacle}")


def command(options: argparse.Namespace) -> int:
    """Run `bpf-exporter check` and return its exit code."""
    path = options.file or options.config_file
    try:
        if options.btf and options.load:
            raise TargetError("--load is for this kernel, --btf for another: one of them")
        if options.btf and not options.btf.is_file():
            raise TargetError(f"--btf {options.btf}: no such file")
        result = find(options, path)
    except TargetError as error:
        print(f"bpf-exporter check: {error}", file=sys.stderr)
        return EXIT_USAGE
    (print_json if options.json else print_text)(result, path)
    return result.exit_code
