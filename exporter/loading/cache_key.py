"""A program, a kernel and the text in front of the program -> the key of the artifact, and why another one does not
fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.kernel import libraries
from exporter.loading.attaching.kind import FILE_KINDS, points
from exporter.loading.compiling import headers, source
from exporter.loading.target import Target
from exporter.spec import ProgramSpec, VariantSpec

FORMAT = 3  # of the artifact's file and of what it holds; older entries are misses


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Everything that the bytecode of a variant depends on except for bcc's version, which is a field of the artifact.

    text      digest of the C text and its `defines:`
    header    digest of the text in front of it: the shared header, types of modules, functions that read the arguments
              of USDT probes in one build of their file
    exporter  digest of how this version of the exporter makes bcc compile
    btf       digest of the kernel's BTF file, release and arch as `uname` says them
    """

    text: str
    header: str
    exporter: str
    btf: str
    release: str
    arch: str

    def key(self, program: str, variant: str) -> str:
        """Return the key of one variant's artifact, a hex digest."""
        return _digest(program, variant, self.text, self.header, self.exporter, self.btf, self.release, self.arch)


def of(program: ProgramSpec, target: Target, header_text: str) -> CacheKey:
    """Return what the program is compiled from, with this text in front of it, and for which kernel."""
    return CacheKey(
        text=_digest(program.text, sorted(program.defines.items())),
        header=_digest(header_text),
        exporter=_digest(FORMAT, headers.REVISION, source.DIALECT),
        btf=target.btf_sha256,
        release=target.release,
        arch=target.arch,
    )


def key(program: ProgramSpec, variant: VariantSpec, target: Target, header_text: str) -> str:
    """Return the key in the cache of the variant's artifact, compiled with this text in front of the program."""
    return of(program, target, header_text).key(program.name, variant.name)


def of_text(program: ProgramSpec, header_text: str) -> str:
    """Return a digest of everything that any kernel would run of a program: its C text and the exporter's, and its
    attach points."""
    variants = [variant.model_dump() for variant in program.variants]
    made = (FORMAT, headers.REVISION, source.DIALECT)
    return _digest(
        program.text, sorted(program.defines.items()), program.requires.model_dump(), variants, header_text, made
    )


def made_of(variant: VariantSpec, artifact_key: str) -> str:
    """Return the digest of what a running variant is made of: its artifact, and the files that its probes are in. After
    an upgrade of a library the probes would be somewhere else, so such a program is not adopted."""
    return _digest(artifact_key, [_file(point.file) for point in points(variant) if point.kind in FILE_KINDS])


def _file(name: str) -> list[str | int]:
    path = libraries.find(name)
    if path is None:
        return [name]
    status = path.stat()
    return [str(path.resolve()), status.st_dev, status.st_ino, status.st_mtime_ns]


def refusal(wanted: CacheKey, found: Sequence[CacheKey]) -> str:
    """Return why none of the artifacts found for a program fits: what is needed, and what the nearest one is for."""
    needed = f"it needs linux {wanted.release} {wanted.arch}, BTF {_short(wanted.btf)}"
    if not found:
        return f"{needed}; nothing of this program is there"
    nearest = min(found, key=lambda other: len(_differences(wanted, other)))
    kernel = f"linux {nearest.release} {nearest.arch}, BTF {_short(nearest.btf)}"
    return f"{needed}; found for {kernel}: {' and '.join(_differences(wanted, nearest))}"


def _differences(wanted: CacheKey, found: CacheKey) -> list[str]:
    """Return what differs, the kernel first."""
    pairs = (
        ("another architecture", wanted.arch, found.arch),
        ("another release", wanted.release, found.release),
        ("another BTF", wanted.btf, found.btf),
        ("another C text or other defines", wanted.text, found.text),
        ("another shared header, other modules or another build of a probed file", wanted.header, found.header),
        ("another version of bpf-exporter", wanted.exporter, found.exporter),
    )
    # An artifact without a difference is of another variant, or damaged.
    return [what for what, one, other in pairs if one != other] or ["another variant, or damaged"]


def _short(digest: str) -> str:
    return digest[:12] or "none"


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
