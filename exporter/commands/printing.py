"""Lines that several commands print alike: findings in files, and what became of each variant."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def print_findings(mistakes: Iterable[object], warnings: Iterable[object]) -> None:
    """Print a line for each to standard error."""
    for line in mistakes:
        print(line, file=sys.stderr)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)


def print_variant(program: str, variant: str, state: str, text: str, assumed: Iterable[str]) -> None:
    """Print what became of a variant, "" for a program without variants, and what was assumed for that."""
    name = f"{program} {variant}".strip()
    print(f"{name}: {state}" + (f" ({text})" if text else ""), flush=True)
    for line in assumed:
        print(f"    assumed: {line}")
