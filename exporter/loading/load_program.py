"""One program of the configuration -> maps, programs and links in the kernel: the first variant that works here.

It runs in a short-lived child of the supervisor, which sends what `load_program` returns to the supervisor and exits.
An error in the program is its state, reason and text; only a bug of the exporter raises an exception.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from exporter import log
from exporter.binding.map_memory import over_limit
from exporter.kernel import bpf, cpus
from exporter.kernel.features import Kernel
from exporter.loading import barrier, build, cache_key, load, requires, seed
from exporter.loading.artifact import Artifact
from exporter.loading.attaching.attach_points import ABSENT, attach_all
from exporter.loading.build import Host
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Attachment, Attempt, Descriptors, Program, Reason, State
from exporter.spec import ProgramSpec, VariantSpec

_log = log.get()


@dataclass(frozen=True, slots=True)
class _Running:
    """A variant that is attached."""

    artifact: Artifact
    from_cache: bool
    attachments: tuple[Attachment, ...]
    descriptors: Descriptors


def load_program(program: ProgramSpec, host: Host) -> tuple[Program, Descriptors]:
    """Load and attach the first variant whose `requires` hold, that compiles, loads and attaches.

    A metric that does not fit its map is found before anything is created. The descriptors are empty unless the state
    is running; then they belong to the caller. Of a variant that failed nothing stays open.
    """
    outcome = Program(program.name, State.DISABLED, source_sha256=hashlib.sha256(program.text.encode()).hexdigest())
    if not program.enabled:
        return outcome, Descriptors()
    if demands := requires.unmet(program.requires, host.kernel):
        text = f"{program.name}: {_requires_text(demands)}"
        return replace(outcome, state=State.SKIPPED, reason=Reason.REQUIRES, text=text), Descriptors()
    attempts: list[Attempt] = []
    for variant in program.variants:
        try:
            running = _try(program, variant, host)
        except RefusedError as error:
            attempts.append(Attempt(variant.name, error.reason, error.text))
            continue
        return (
            replace(
                outcome,
                state=State.RUNNING,
                variant=variant.name,
                compile_seconds=0.0 if running.from_cache else running.artifact.compile_seconds,
                from_cache=running.from_cache,
                maps=running.artifact.maps,
                attachments=running.attachments,
                attempts=tuple(attempts),
                made_of=cache_key.made_of(variant, running.artifact.key),
            ),
            running.descriptors,
        )
    return _not_running(program, outcome, attempts), Descriptors()


def _not_running(program: ProgramSpec, outcome: Program, attempts: list[Attempt]) -> Program:
    """Return the program as skipped if every variant lacks something that it may lack; else as failed, with the first
    error."""
    expected = {Reason.REQUIRES} | (ABSENT if program.optional else set())
    hard = next((attempt for attempt in attempts if attempt.reason not in expected), None)
    if len(attempts) == 1:
        text = f"{program.name}: {attempts[0].text}"
    else:
        text = f"{program.name}: no variant can be used: " + "; ".join(f"{a.variant}: {a.text}" for a in attempts)
    return replace(
        outcome,
        state=State.FAILED if hard else State.SKIPPED,
        reason=hard.reason if hard else attempts[0].reason,
        text=text,
        attempts=tuple(attempts),
    )


def _try(program: ProgramSpec, variant: VariantSpec, host: Host) -> _Running:
    """Load and attach one variant. RefusedError, and then nothing of it stays open."""
    if demands := requires.unmet(variant.requires, host.kernel):
        raise RefusedError(Reason.REQUIRES, _requires_text(demands))
    load.raise_memlock(host.kernel)
    compiled, from_cache = _artifact(program, variant, host)
    if too_much := over_limit(compiled.maps, cpus.possible(host.kernel.sysfs), host.map_memory):
        raise RefusedError(Reason.MAP, too_much)
    descriptors = Descriptors()
    programs = None
    try:
        descriptors.maps = load.create_maps(compiled, host.kernel)
        barrier.add(descriptors.maps, host.kernel)
        _seed(program, compiled, descriptors, host.kernel)
        programs = load.LoadedFunctions(compiled, descriptors.maps, host.kernel)
        attachments, used = attach_all(variant, programs, host.kernel, descriptors.links)
        _seed(program, compiled, descriptors, host.kernel)
        descriptors.programs = programs.release(used)
        _open_readonly(descriptors, host.kernel)
    except BaseException:
        if programs:
            programs.close()
        descriptors.close()
        raise
    return _Running(compiled, from_cache, attachments, descriptors)


def _artifact(program: ProgramSpec, variant: VariantSpec, host: Host) -> tuple[Artifact, bool]:
    """Return the variant's artifact, its metrics bound, and True if it was in the cache; a new one is put there."""
    compiled, from_cache = build.build(program, variant, host, probe=True)
    if not from_cache:
        try:
            host.cache.put(compiled)
        except OSError as error:  # a full disk makes the next start slower; this one needs no cache any more
            cause = error.strerror
            _log.warning("artifact not kept", program=program.name, cache=str(host.cache.directory), error=cause)
    build.bind(program, compiled.maps)
    return compiled, from_cache


def _seed(program: ProgramSpec, compiled: Artifact, descriptors: Descriptors, kernel: Kernel) -> None:
    for name, options in program.maps.items():
        if options.seed is None:
            continue
        layout = next(m for m in compiled.maps if m.name == name)  # build.bind() refuses names that the C text lacks
        seed.reconcile(options.seed, layout, descriptors.maps[name], kernel)


def _open_readonly(descriptors: Descriptors, kernel: Kernel) -> None:
    for name, fd in descriptors.maps.items():
        try:
            descriptors.readonly[name] = bpf.map_fd_by_id(bpf.map_info(fd).id, bpf.BPF_F_RDONLY)
        except OSError as error:
            raise refused(f"open map {name} read-only", error, kernel, Reason.MAP) from error


def _requires_text(demands: list[str]) -> str:
    return f"requires {'; requires '.join(demands)}"
