"""One program of the configuration -> maps, programs and attachments in the kernel: the first variant that works here.

Runs in a short-lived child of the supervisor (design.md, section 2), which sends on what `load_program` returns and
exits. Whatever is wrong with the program itself comes back as its state, reason and text; only the exporter's own bugs
are exceptions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from exporter import log
from exporter.binding.bind import BindingError
from exporter.binding.map_memory import over_limit
from exporter.kernel import bpf, cpus
from exporter.kernel.features import Kernel
from exporter.loading import artifact, barrier, cache_key, identity, load, requires, seed
from exporter.loading.artifact import Artifact
from exporter.loading.attaching.attach_points import ABSENT, attach_all, points
from exporter.loading.compiling import compiler, prelude
from exporter.loading.refusal import RefusedError, refused
from exporter.loading.target import Target
from exporter.program import Attachment, Attempt, Descriptors, Map, Program, Reason, State
from exporter.spec import Limits, ProgramSpec, VariantSpec

_log = log.get()

Check = Callable[[Sequence[Map]], None]


@dataclass(frozen=True, slots=True)
class Host:
    """What a program is loaded for and with.

    target   the kernel that artifacts are for: this one
    cache    of artifacts
    header   text of programs/include/exporter.h
    kernel   the running kernel
    map_memory  bytes that the maps of one program may take (limits.map_memory)
    compiles    whether what is not in the cache may be compiled
    """

    target: Target
    cache: artifact.Cache
    header: str
    kernel: Kernel
    map_memory: int = Limits().map_memory
    compiles: bool = True


@dataclass(frozen=True, slots=True)
class _Running:
    """A variant that runs."""

    artifact: Artifact
    from_cache: bool
    attachments: tuple[Attachment, ...]
    descriptors: Descriptors


def load_program(program: ProgramSpec, host: Host, check: Check) -> tuple[Program, Descriptors]:
    """Load and attach the first variant whose `requires` hold, that compiles, loads and attaches.

    `check` gets the layouts of the artifact's maps before anything is created and raises BindingError if a metric does
    not fit them. The descriptors are empty unless the state is running; then the caller owns them. Of a variant that
    failed nothing stays open.
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
            running = _try(program, variant, host, check)
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
                identity=identity.of(variant, running.artifact.key),
            ),
            running.descriptors,
        )
    return _not_running(program, outcome, attempts), Descriptors()


def _not_running(program: ProgramSpec, outcome: Program, attempts: list[Attempt]) -> Program:
    """Skipped if nothing here could ever be attached and that is no mistake; else failed, with the first mistake."""
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


def _try(program: ProgramSpec, variant: VariantSpec, host: Host, check: Check) -> _Running:
    """Load and attach one variant, or RefusedError with nothing left behind."""
    if demands := requires.unmet(variant.requires, host.kernel):
        raise RefusedError(Reason.REQUIRES, _requires_text(demands))
    load.raise_memlock(host.kernel)
    compiled, from_cache = _artifact(program, variant, host)
    try:
        check(compiled.maps)
    except BindingError as error:
        raise RefusedError(Reason.BINDING, "; ".join(error.messages)) from error
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


def is_cached(program: ProgramSpec, variant: VariantSpec, host: Host) -> bool:
    """Whether the variant's artifact is in the cache; not if a file that it probes is missing."""
    try:
        return _cached(program, variant, host, None) is not None
    except RefusedError:
        return False


def why_not_cached(program: ProgramSpec, variants: Sequence[VariantSpec], host: Host) -> str:
    """Why nothing in the cache is for this host: what it needs, and what there is of these variants. RefusedError where
    a file that the first one probes is missing."""
    header = prelude.header(host.header, program, variants[0], host.kernel, host.target)
    found = host.cache.cache_keys(program.name, {variant.name for variant in variants})
    return cache_key.refusal(cache_key.of(program, host.target, header), found)


def _artifact(program: ProgramSpec, variant: VariantSpec, host: Host) -> tuple[Artifact, bool]:
    """The variant's artifact, and whether it was in the cache."""
    if cached := _cached(program, variant, host, compiler.bcc_version() if host.compiles else None):
        return cached, True
    if not host.compiles:
        why = why_not_cached(program, [variant], host)
        hint = "bpf-exporter compile makes it"
        raise RefusedError(
            Reason.CACHE, f"compile: not allowed here, and not in {host.cache.directory}: {why} ({hint})"
        )
    for point in points(variant):
        if not point.optional:
            load.probe(host.kernel, point)
    header = prelude.header(host.header, program, variant, host.kernel, host.target)
    try:
        compiled = compiler.compile_variant(program, variant, host.target, header, host.cache.headers)
    except compiler.CompileError as error:
        raise RefusedError(error.reason, error.text) from error
    try:
        host.cache.put(compiled)
    except OSError as error:  # a full disk makes the next start slower, and this one is already done
        _log.warning("artifact not kept", program=program.name, cache=str(host.cache.directory), cause=error.strerror)
    return compiled, False


def identities(program: ProgramSpec, variant: VariantSpec, host: Host) -> list[str]:
    """What the variant would be if it was loaded now (loading/identity.py): one or the other; none where a file that it
    probes is missing."""
    try:
        return [identity.of(variant, key) for key in _keys(program, variant, host)]
    except (RefusedError, OSError):
        return []


def _cached(program: ProgramSpec, variant: VariantSpec, host: Host, bcc_version: str | None) -> Artifact | None:
    found = (host.cache.get(key, bcc_version) for key in _keys(program, variant, host))
    return next((each for each in found if each is not None), None)


def _keys(program: ProgramSpec, variant: VariantSpec, host: Host) -> Iterator[str]:
    """In the cache, where it may be without the types of modules: made elsewhere, and then it needs none."""
    with_modules = [False, True] if program.requires.module or variant.requires.module else [True]
    for modules in with_modules:
        header = prelude.header(host.header, program, variant, host.kernel, host.target, modules=modules)
        yield artifact.key(program, variant, host.target, header)


def _seed(program: ProgramSpec, compiled: Artifact, descriptors: Descriptors, kernel: Kernel) -> None:
    for name, options in program.maps.items():
        if options.seed is None:
            continue
        layout = next((m for m in compiled.maps if m.name == name), None)
        if layout is None:
            names = ", ".join(m.name for m in compiled.maps) or "none"
            raise RefusedError(Reason.BINDING, f"seed {name}: no such map in the C text (there are: {names})")
        seed.reconcile(options.seed, layout, descriptors.maps[name], kernel)


def _open_readonly(descriptors: Descriptors, kernel: Kernel) -> None:
    for name, fd in descriptors.maps.items():
        try:
            descriptors.readonly[name] = bpf.map_fd_by_id(bpf.map_info(fd).id, bpf.BPF_F_RDONLY)
        except OSError as error:
            raise refused(f"open map {name} read-only", error, kernel, Reason.MAP) from error


def _requires_text(demands: list[str]) -> str:
    return f"requires {'; requires '.join(demands)}"
