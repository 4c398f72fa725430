"""One variant of a program -> its artifact: out of the cache, or compiled. And the metrics bound to its maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from exporter.binding.bind import BindingError, bind_all
from exporter.kernel.features import Kernel
from exporter.loading import cache_key, load
from exporter.loading.artifact import Artifact, Cache
from exporter.loading.attaching.kind import points
from exporter.loading.compiling import compiler, prelude
from exporter.loading.refusal import RefusedError
from exporter.loading.target import Target
from exporter.program import Map, Reason
from exporter.spec import Limits, ProgramSpec, VariantSpec


@dataclass(frozen=True, slots=True)
class Host:
    """The kernel that a program is compiled and loaded for, and the means to do that.

    target      the kernel that artifacts are for
    cache       of artifacts
    header      text of programs/include/exporter.h
    kernel      the running kernel
    map_memory  bytes that the maps of one program may take (limits.map_memory)
    compiles    True if a variant that the cache lacks may be compiled
    """

    target: Target
    cache: Cache
    header: str = field(default_factory=prelude.shared_header)
    kernel: Kernel = field(default_factory=Kernel)
    map_memory: int = Limits().map_memory
    compiles: bool = True


def build(program: ProgramSpec, variant: VariantSpec, host: Host, *, probe: bool = False) -> tuple[Artifact, bool]:
    """Return the variant's artifact, and True if the cache has it.

    probe   before compiling, attach a program that does nothing at every point that is not optional

    RefusedError where the variant does not compile, must not be compiled, or has a point that nothing can attach to.
    """
    if found := _cached(program, variant, host, compiler.bcc_version() if host.compiles else None):
        return found, True
    if not host.compiles:
        why = why_not_cached(program, [variant], host)
        text = f"compile: not allowed here, and not in {host.cache.directory}: {why} (bpf-exporter compile makes it)"
        raise RefusedError(Reason.CACHE, text)
    if probe:
        for point in points(variant):
            if not point.optional:
                load.probe(host.kernel, point)
    header = _header(program, variant, host)
    return compiler.compile_variant(program, variant, host.target, header, host.cache.headers), False


def bind(program: ProgramSpec, maps: Sequence[Map]) -> None:
    """Check that the program's metrics fit the layouts of its maps. RefusedError with every metric that does not."""
    try:
        bind_all(program.metrics, maps, program.maps)
    except BindingError as error:
        raise RefusedError(Reason.BINDING, "; ".join(error.messages)) from error


def is_cached(program: ProgramSpec, variant: VariantSpec, host: Host) -> bool:
    """Return True if the cache has the variant's artifact; False also where a file that it probes is missing."""
    try:
        return _cached(program, variant, host, None) is not None
    except RefusedError:
        return False


def why_not_cached(program: ProgramSpec, variants: Sequence[VariantSpec], host: Host) -> str:
    """Return why nothing in the cache fits this host: what is needed, and what the cache has of these variants.
    RefusedError where a file that the first variant probes is missing."""
    wanted = cache_key.of(program, host.target, _header(program, variants[0], host))
    return cache_key.refusal(wanted, host.cache.cache_keys(program.name, {variant.name for variant in variants}))


def made_of(program: ProgramSpec, variant: VariantSpec, host: Host) -> list[str]:
    """Return the values that Program.made_of can have if the variant is loaded now: two where a cache may hold it with
    and without the types of modules. RefusedError or OSError where a file that it probes cannot be read."""
    return [cache_key.made_of(variant, key) for key in _keys(program, variant, host)]


def _cached(program: ProgramSpec, variant: VariantSpec, host: Host, bcc_version: str | None) -> Artifact | None:
    found = (host.cache.get(key, bcc_version) for key in _keys(program, variant, host))
    return next((each for each in found if each is not None), None)


def _keys(program: ProgramSpec, variant: VariantSpec, host: Host) -> Iterator[str]:
    """Yield the keys that the artifact can have in the cache. One that was made on another host is made without the
    types of modules, and needs none."""
    with_modules = [False, True] if program.requires.module or variant.requires.module else [True]
    for modules in with_modules:
        yield cache_key.key(program, variant, host.target, _header(program, variant, host, modules=modules))


def _header(program: ProgramSpec, variant: VariantSpec, host: Host, *, modules: bool = True) -> str:
    return prelude.header(host.header, program, variant, host.kernel, host.target, modules=modules)
