"""The matrix by hand: python -m tests.matrix [SERIES ...] prints what runs where; the results stay in a directory.

A series is one of kernels.SERIES or kernels.ARM64, or "here" for the running kernel.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.matrix import examine, kernels, table

KNOWN = [*kernels.SERIES, *kernels.ARM64, examine.HERE]


def main(arguments: list[str]) -> int:
    """Examine the series given, or all. 0 if every kernel ran every check to its end."""
    wanted = arguments or KNOWN
    if unknown := [series for series in wanted if series not in KNOWN]:
        print(f"unknown series {', '.join(unknown)} (known: {', '.join(KNOWN)})", file=sys.stderr)
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
    path = kernels.cache_directory() / "matrix.md"
    path.write_text(table.markdown(done))
    print(f"\n{path.read_text()}\n{path}")
    broken = [text for found in done for text in _failures(found)]
    print("\n".join(broken))
    return 1 if broken else 0


def _failures(found: examine.Examined) -> list[str]:
    expected = ("kind/fentry", "kind/fexit") if found.series in kernels.NO_TRAMPOLINES else ()
    errors = {name: step.error for name, step in found.steps.items() if step.error and name not in expected}
    failed = [f"linux {found.series}: {name}:\n{error}" for name, error in errors.items()]
    return ([f"linux {found.series}: {found.failure}"] if found.failure else []) + failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
