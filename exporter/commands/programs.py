"""`programs`: the bundled programs, what each counts, its metrics, and what its variants require."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from exporter import config
from exporter.commands.exit_codes import EXIT_OK, EXIT_USAGE
from exporter.config import bundled, bundled_dir
from exporter.kernel.near import did_you_mean
from exporter.spec import ProgramSpec, Requirements, VariantSpec


def print_list(directory: Path) -> None:
    """Print a line for each program: its name, what it counts, its metrics."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("PROGRAM", "COUNTS", "METRICS"):
        table.add_column(title, no_wrap=title != "COUNTS")
    for name in bundled.names(directory):
        program = _program(directory, name)
        table.add_row(name, _comment(program)[0], "\n".join(_metric_names(program)))
    _console().print(table)
    print("\n`bpf-exporter programs NAME` describes one; `- use: NAME` under `programs:` runs it.")


def print_one(directory: Path, name: str) -> None:
    """Print the comment at the top of a program's C text, its metrics and variants. LookupError if there is none."""
    known = bundled.names(directory)
    if name not in known:
        raise LookupError(f"no bundled program {name!r}; {did_you_mean(name, known, otherwise='there are')}")
    program = _program(directory, name)
    print("\n".join([f"{name}: {_comment(program)[0]}", *_comment(program)[1:]]))
    print("\nMetrics")
    for metric in program.metrics:
        labels = ", ".join(label.name for label in metric.labels) if metric.labels is not None else "every key field"
        print(f"  {metric.name} ({metric.type}): {metric.help}\n      labels: {labels or 'none'}")
    print("\nVariants: the first one that this kernel accepts is used")
    for variant in program.variants:
        print(f"  {variant.name or '-'}: {', '.join(_points(variant))}{_requires(variant.requires)}")


def _program(directory: Path, name: str) -> ProgramSpec:
    return config.load_bundled(name, bundled=directory).config.programs[0]


def _comment(program: ProgramSpec) -> list[str]:
    """Return the comment lines at the beginning of the C text, without the name before the first line's colon."""
    lines: list[str] = []
    for line in program.text.splitlines():
        if not line.startswith("//"):
            if lines:
                break
            continue
        text = line.removeprefix("//").removeprefix(" ")
        if not text.startswith("SPDX-"):
            lines.append(text)
    lines = lines or ["(no comment at the top of its C text)"]
    return [re.sub(rf"^{re.escape(program.name)}:\s*", "", lines[0]), *lines[1:]]


def _metric_names(program: ProgramSpec) -> list[str]:
    return list(dict.fromkeys(metric.name for metric in program.metrics))


def _points(variant: VariantSpec) -> list[str]:
    return [f"{p.kind} {target}{' (optional)' if p.optional else ''}" for p in variant.attach for target in p.targets]


def _requires(requires: Requirements) -> str:
    wanted = [f"kernel {requires.kernel}"] if requires.kernel else []
    wanted += [f"arch {arch}" for arch in requires.arch]
    wanted += [f"module {module}" for module in requires.module]
    wanted += [f"member {member}" for member in requires.member]
    wanted += [f"tracepoint field {name}" for name in requires.tracepoint_field]
    return f"; requires {', '.join(wanted)}" if wanted else ""


def _console() -> Console:
    """Return a console as wide as the terminal, or wide enough for whole lines where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def command(options: argparse.Namespace) -> int:
    """Run `bpf-exporter programs`: list the bundled programs, or describe one. Return the exit code."""
    directory = bundled_dir()
    if options.name is None:
        print_list(directory)
        return EXIT_OK
    try:
        print_one(directory, options.name)
    except LookupError as error:
        print(f"bpf-exporter programs: {error.args[0]}", file=sys.stderr)
        return EXIT_USAGE
    return EXIT_OK
