"""Programs that an earlier supervisor left running -> which of them this one would load the same.

A child finds that out: the types of modules and the probed files that the digests are made of would stay in the memory
of the supervisor.
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
    """Return what tells for each candidate whether loading it now would give what runs."""

    def same(candidates: Sequence[Candidate]) -> list[bool]:
        def work(_: object) -> str:
            return json.dumps([_is_same(spec, program, host) for spec, program in candidates])

        outcome = isolated.run_isolated(work)
        answers = json.loads(outcome.answer or "[]")
        return answers if len(answers) == len(candidates) else [False] * len(candidates)

    return same


def _is_same(spec: ProgramSpec, program: Program, host: Host) -> bool:
    variant = next((v for v in spec.variants if v.name == program.variant), None)
    return variant is not None and program.made_of in build.made_of(spec, variant, host)
