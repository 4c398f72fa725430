"""Programs that an earlier supervisor left running -> why this supervisor must not adopt them, "" where it may.

A program is adopted if loading it now would give the same. A child compares: the types of modules and the probed files
that the digests are made of would stay in the memory of the supervisor.
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
Compare = Callable[[Sequence[Candidate]], list[str]]


def comparison(host: Host) -> Compare:
    """Return the function that gives for each candidate how loading it now would differ from what runs."""

    def compare(candidates: Sequence[Candidate]) -> list[str]:
        def work(_: object) -> str:
            return json.dumps([_difference(spec, program, host) for spec, program in candidates])

        outcome = isolated.run_isolated(work)
        answers: list[str] = json.loads(outcome.answer or "[]")
        if len(answers) != len(candidates):
            return [f"the process that compares ended with {outcome.last_words}"] * len(candidates)
        return answers

    return compare


def _difference(spec: ProgramSpec, program: Program, host: Host) -> str:
    variant = next((v for v in spec.variants if v.name == program.variant), None)
    if variant is None:
        return f"the configuration has no variant {program.variant!r} of it"
    if program.made_of not in build.made_of(spec, variant, host):
        return "its bytecode would be made from something else, or a file that it probes is another one"
    return ""
