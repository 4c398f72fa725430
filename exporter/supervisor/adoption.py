"""Would loading a stored program now give the same bytecode, at the same probed files? "" for yes, else the reason.

fd_store.py compares configuration and metrics first, and logs every reason. A short-lived child process compares the
bytecode and the files, because the data behind the digests would otherwise stay in the supervisor's memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from exporter.ipc import isolated
from exporter.loading import build
from exporter.loading.build import Host
from exporter.loading.refusal import RefusedError
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
    try:
        if program.made_of in build.made_of(spec, variant, host):
            return ""
    except RefusedError as error:
        return error.text
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return "the kernel, the shared header, the exporter's compiler settings or a file that it probes is another one"
