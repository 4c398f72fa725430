"""Which of the programs that an earlier supervisor left running are those that this one would load.

Answered in a child of its own: the types of modules and the probed files that the digests are made of are not for a
process that lives on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from exporter.ipc import isolated
from exporter.loading import build
from exporter.loading.build import Host
from exporter.program import Program
from exporter.spec import ProgramSpec

Candidate = tuple[ProgramSpec, Program]  # as it is configured now, and as it runs
IsUnchanged = Callable[[Sequence[Candidate]], list[bool]]


def same_as_loaded(host: Host) -> IsUnchanged:
    """For each candidate whether loading it now would give what runs."""

    def same(candidates: Sequence[Candidate]) -> list[bool]:
        def work(_: object) -> str:
            return json.dumps([_is_same(spec, program, host) for spec, program in candidates])

        outcome = isolated.run_isolated(work)
        return json.loads(outcome.answer) if outcome.answer else [False] * len(candidates)

    return same


def _is_same(spec: ProgramSpec, program: Program, host: Host) -> bool:
    variant = next((v for v in spec.variants if v.name == program.variant), None)
    return variant is not None and program.made_of in build.made_of(spec, variant, host)
