"""The matrix by hand: python -m tests.matrix [SERIES ...] prints what runs where; the results stay in a directory."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.matrix import examine, kernels


def main(arguments: list[str]) -> int:
    """Examine the series given, or all. 0 if every kernel ran every check to its end."""
    wanted = arguments or list(kernels.SERIES)
    if unknown := [series for series in wanted if series not in kernels.SERIES]:
        print(f"unknown series {', '.join(unknown)} (known: {', '.join(kernels.SERIES)})", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="bpf-exporter-matrix-"))
    print(f"results in {work}", flush=True)
    pool, running = examine.start(wanted, work)
    done = []
    for series in wanted:
        found = running[series].result()
        times = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in found.seconds.items())
        print(f"linux {found.kernel or series}: {times}", flush=True)
        done.append(found)
    pool.shutdown()
    _print_table(done)
    broken = [text for found in done for text in _failures(found)]
    print("\n".join(broken))
    return 1 if broken else 0


def _print_table(done: list[examine.Examined]) -> None:
    """Program and variant by kernel: "*" the one that is used, "runs", or the reason why it does not."""
    rows = dict.fromkeys(name for found in done for name in found.steps if name.startswith("program/"))
    print(f"\n{'':32}" + "".join(f"{found.series:>12}" for found in done))
    for row in rows:
        _, program, variant = row.split("/")
        print(f"{program + ' ' + variant:32}" + "".join(f"{_cell(found, program, variant):>12}" for found in done))


def _cell(found: examine.Examined, program: str, variant: str) -> str:
    step, chosen = found.steps.get(f"program/{program}/{variant}"), found.steps.get(f"chosen/{program}")
    if step is None or step.error:
        return "BROKEN"
    if step.value["state"] != "running":
        return str(step.value["reason"])
    if not _exact(step.value):
        return "MISCOUNTS"
    return "runs *" if chosen and chosen.value and chosen.value["variant"] == variant else "runs"


def _exact(value: dict[str, Any]) -> bool:
    """The plain equalities of test_programs.py, which has the rest."""
    families = [part for part in value.values() if isinstance(part, dict) and "made" in part]
    return value.get("sent") == value.get("out_resets") and all(part["made"] == part["counted"] for part in families)


def _failures(found: examine.Examined) -> list[str]:
    failed = [f"linux {found.series}: {name}:\n{step.error}" for name, step in found.steps.items() if step.error]
    return ([f"linux {found.series}: {found.failure}"] if found.failure else []) + failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
