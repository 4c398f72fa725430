"""Every program of WORK/everything.json loaded as the exporter would, results to WORK/results.jsonl.

    python -m tests.matrix.guest.everything WORK [checks]

With `checks` after those of `python -m tests.matrix.guest WORK`, in the same process, because imports take long.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

from exporter.config import model
from exporter.loading import child
from tests.matrix.guest import __main__ as guest
from tests.matrix.guest import product
from tests.matrix.guest.steps import Steps


def main(work: Path, checks: bool) -> int:
    """The machine that compiled them loads them by the same way as one that has no compiler."""
    if checks:
        guest.main(work)
    sys.modules["bcc"] = None  # type: ignore[assignment]
    on = product.host(work / "artifacts", (work / "exporter.h").read_text())
    steps = Steps(work / "results.jsonl")
    for name, document in json.loads((work / "everything.json").read_text()).items():
        steps.run(f"load/{name}", functools.partial(_load, document, on), deadline=300)
    return 0


def _load(document: dict[str, Any], on: child.Host) -> dict[str, Any]:
    """{"state", "variant", "reason", "text", "attempts": [variant, reason, text] of each one before}."""
    spec = model.Program.model_validate(document)
    if any(at.kind == "usdt" for variant in spec.variants for at in variant.attach):
        sys.modules.pop("bcc", None)  # part of its C text is made from the probed file, so it is compiled where that is
    loaded, fds = product.load(spec, on)
    child.close(fds)
    return {
        "state": str(loaded.state),
        "variant": loaded.variant,
        "reason": str(loaded.reason),
        "text": loaded.text,
        "attempts": [[a.variant, str(a.reason), a.text] for a in loaded.attempts],
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:] == ["checks"]))
