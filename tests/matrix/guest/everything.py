"""Every program of WORK/everything.json loaded as the exporter would, then with each variant behind the one it chose,
and what they counted of work that somebody else counted too; results to WORK/results.jsonl.

    python -m tests.matrix.guest.everything WORK    with no other checks; `python -m tests.matrix.guest WORK` has all
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

from exporter.loading import build
from exporter.program import State
from exporter.spec import ProgramSpec
from tests.matrix.guest import product
from tests.matrix.guest.steps import Steps
from tests.peer.counting import CHECKS, counted

DEADLINE = 300.0  # seconds for one program


def main(work: Path) -> int:
    """The machine that compiled them loads them by the same way as one that has no compiler."""
    sys.modules["bcc"] = None  # type: ignore[assignment]
    on = product.host(work / "artifacts", (work / "exporter.h").read_text())
    steps = Steps(work / "results.jsonl")
    for name, document in json.loads((work / "everything.json").read_text()).items():
        spec = ProgramSpec.model_validate(document)
        chosen = steps.run(f"load/{name}", functools.partial(_load, name, spec, on), DEADLINE)
        names = [variant.name for variant in spec.variants]
        if name in CHECKS and chosen and chosen["state"] == State.RUNNING:
            for variant in names[names.index(chosen["variant"]) + 1 :]:
                alone = functools.partial(_load, name, product.only(spec, variant), on)
                steps.run(f"variant/{name}/{variant}", alone, DEADLINE)
    return 0


def _load(name: str, spec: ProgramSpec, on: build.Host) -> dict[str, Any]:
    """{"state", "variant", "reason", "text", "attempts": [variant, reason, text] of each one before,
    "counted": what its check found if it runs and there is one}."""
    if any(at.kind == "usdt" for variant in spec.variants for at in variant.attach):
        sys.modules.pop("bcc", None)  # part of its C text is made from the probed file, so it is compiled where that is
    program, fds = product.load(spec, on)
    try:
        runs = program.state is State.RUNNING and name in CHECKS
        return {
            "state": str(program.state),
            "variant": program.variant,
            "reason": str(program.reason),
            "text": program.text,
            "attempts": [[a.variant, str(a.reason), a.text] for a in program.attempts],
            "counted": counted(name, product.running(program, spec, fds)) if runs else None,
        }
    finally:
        fds.close()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
