"""All checks on the kernel that runs, results to WORK/results.jsonl: python -m tests.matrix.guest WORK"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from exporter.kernel import credentials
from exporter.spec import ProgramSpec
from tests.matrix.guest import attaching, daemon, draining, everything, maps, places, product, programs, rights
from tests.matrix.guest.steps import Steps

KINDS = ("kprobe", "kretprobe", "fentry", "fexit", "tracepoint", "raw_tracepoint", "tp_btf")


def main(work: Path) -> int:
    # Whatever asks for bcc fails: what is loaded here was compiled elsewhere.
    sys.modules["bcc"] = None  # type: ignore[assignment]
    specs = {s["name"]: ProgramSpec.model_validate(s) for s in json.loads((work / "specs.json").read_text())}
    on = product.host(work / "artifacts", (work / "exporter.h").read_text())
    steps = Steps(work / "results.jsonl")
    call = functools.partial
    steps.run("facts", facts)
    for kind in KINDS:
        steps.run(f"kind/{kind}", call(attaching.counts, specs["attach_kinds"], kind, on))
    steps.run("left_after_kill", call(attaching.left_after_kill, specs["attach_kinds"], on))
    for variant in specs["attach_places"].variants:
        steps.run(f"place/{variant.name}", call(places.CHECKS[variant.name], specs["attach_places"], variant.name, on))
    steps.run("map_kinds", call(maps.read_back, specs["map_kinds"], on))
    steps.run("large_maps", maps.large)
    steps.run("drained", call(draining.exact, specs["drained"], on))
    for name, keep in (("none", frozenset[int]()), ("cap_bpf", frozenset({credentials.CAP_BPF}))):
        steps.run(f"rights/{name}", call(rights.read_as_nobody, specs["attach_kinds"], on, keep))
    checks = programs.Checks(specs, on)
    for name in programs.CHECKS:
        steps.run(f"chosen/{name}", call(checks.chosen, name))
        for variant in specs[name].variants:
            steps.run(f"program/{name}/{variant.name}", call(checks.variant, name, variant.name))
    steps.run("daemon", call(daemon.scraped_then_killed, work / "artifacts"), deadline=200)
    steps.run("module_types", call(places.module_types, on.header), deadline=300)
    steps.run("compiled_inside", call(checks.compiled_inside, "tcp_sendmsg"), deadline=300)
    return everything.main(work)


def facts() -> dict[str, Any]:
    """What the tests want to know of the kernel."""
    return {
        "release": os.uname().release,
        "bcc": sys.modules.get("bcc") is not None,
        "cpus": os.cpu_count(),
        "uptime": float(Path("/proc/uptime").read_text().split()[0]),
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
