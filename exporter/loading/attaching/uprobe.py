"""uprobe and uretprobe, at functions of programs and libraries, in every process that maps the file, now or later.

By a uprobe.multi link (6.6) even for a single one, because it is closed in some 20 ms instead of 100; before that by
the uprobe PMU. The file is the one that has the name now: a package upgrade replaces it, and the probes
stay with the old file until the program is loaded again.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.kernel import bpf, links, perf_event
from exporter.kernel.features import Kernel
from exporter.kernel.near import near
from exporter.loading.attaching import target_files
from exporter.loading.attaching.kind import AttachPoint, Kind, Link, MultiLink, attach_perf_event
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason

if TYPE_CHECKING:
    from exporter.kernel.elf import ElfFile, Symbol

_TARGET = re.compile(r"(?P<symbol>.+?)(\+(?P<more>0x[0-9a-fA-F]+|[0-9]+))?")


@dataclass(frozen=True, slots=True)
class ProbeSite:
    """The site of a probe in a file: byte offset of the instruction, and of the USDT semaphore (0 for none)."""

    path: Path
    offset: int
    semaphore: int = 0


def locate(kernel: Kernel, point: AttachPoint) -> ProbeSite:
    """Return the site of a target FILE:SYMBOL, FILE:SYMBOL@VERSION, FILE:SYMBOL+0x10 or FILE:0xOFFSET. RefusedError."""
    file, _, where = point.target.rpartition(":")
    with target_files.opened(kernel, point, file) as elf:
        if where.startswith("0x"):
            offset = int(where, 16)
        else:
            match = _TARGET.fullmatch(where)
            assert match is not None
            symbol = _symbol(point, elf, match["symbol"])
            offset = target_files.offset(point, elf, symbol.address, symbol.name) + int(match["more"] or "0", 0)
        if not elf.is_code(offset):
            text = f"{point.step}: 0x{offset:x} is not in the code of {elf.path} (an offset in the file is meant, as"
            raise RefusedError(Reason.MISSING, f"{text} `perf probe -x` shows it, not an address)")
        return ProbeSite(elf.path, offset)


def _symbol(point: AttachPoint, elf: ElfFile, wanted: str) -> Symbol:
    name, _, version = wanted.partition("@")
    version = version.lstrip("@")
    found = elf.functions(name)
    chosen = [s for s in found if s.version == version] if version else [s for s in found if s.default] or found
    if not chosen:
        raise _no_symbol(point, elf, name, version, found)
    if len({symbol.address for symbol in chosen}) > 1:
        at = ", ".join(f"{s.name}{'@' + s.version if s.version else ''} at 0x{elf.offset(s.address):x}" for s in chosen)
        hint = "write FILE:0xOFFSET, or the version"
        raise RefusedError(Reason.MISSING, f"{point.step}: several functions have this name: {at} ({hint})")
    if chosen[0].resolver:
        text = f"{point.step}: {name} only chooses an implementation for this CPU, once (an indirect function)"
        raise RefusedError(Reason.UNSUPPORTED, f"{text}; name the implementation, like __{name}_avx_unaligned")
    return chosen[0]


def _no_symbol(point: AttachPoint, elf: ElfFile, name: str, version: str, found: list[Symbol]) -> RefusedError:
    if found:
        have = ", ".join(symbol.version for symbol in found if symbol.version) or "no versions"
        return RefusedError(
            Reason.MISSING, f"{point.step}: no version {version} of {name} in {elf.path} (it has {have})"
        )
    if elf.imports(name):
        hint = "it is imported: name the library that has it"
    elif names := near(name, elf.function_names()):
        hint = f"near: {', '.join(names)}"
    elif not elf.function_names():
        hint = "the file is stripped: install its debug symbols, or write FILE:0xOFFSET"
    else:
        hint = "C++ and Rust names are written as `nm` shows them, mangled; static functions may be inlined or stripped"
    return RefusedError(Reason.MISSING, f"{point.step}: no function {name} in {elf.path} ({hint})")


def _matching(kernel: Kernel, point: AttachPoint) -> list[str]:
    """Return FILE:SYMBOL for every function of the file that the point's glob matches. Left out: indirect functions,
    names that several functions have, and parts that the compiler split off (x.cold) unless the glob has a dot."""
    file, _, pattern = point.target.rpartition(":")
    with target_files.opened(kernel, point, file) as elf:
        names = [n for n in elf.matching(pattern) if "." not in n or "." in pattern]
        found = [f"{file}:{name}" for name in names if _is_one(elf.functions(name))] if len(names) <= 2000 else names
        if not found:
            raise RefusedError(Reason.MISSING, f"{point.step}: no function of {elf.path} matches (see `nm -D`)")
        return found


def _is_one(symbols: list[Symbol]) -> bool:
    default = [symbol for symbol in symbols if symbol.default] or symbols
    return len({symbol.address for symbol in default}) == 1 and not default[0].resolver


def attach_site(kernel: Kernel, point: AttachPoint, site: ProbeSite, prog_fd: int, at_return: bool) -> Link:
    """Attach the program at one site, by the uprobe PMU. RefusedError."""
    try:
        event = perf_event.open_uprobe(site.path, site.offset, at_return, site.semaphore, kernel.sysfs)
    except OSError as error:
        raise _refused(kernel, point, site, error) from error
    return attach_perf_event(kernel, point, event, prog_fd)


def _refused(kernel: Kernel, point: AttachPoint, site: ProbeSite, error: OSError) -> RefusedError:
    where = f"{site.path} at 0x{site.offset:x}"
    if error.errno in (bpf.ENOTSUPP, errno.EOPNOTSUPP, errno.EILSEQ):
        text = f"{point.step}: the instruction in {where} cannot be probed (write the start of an instruction)"
        return RefusedError(Reason.UNSUPPORTED, text)
    if error.errno in (errno.EINVAL, errno.EIO):
        text = f"{point.step}: {where} cannot be probed: {error.strerror} (a file system without pages, or no code)"
        return RefusedError(Reason.UNSUPPORTED, text)
    return refused(point.step, error, kernel)


def _entry(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    return attach_site(kernel, point, locate(kernel, point), prog_fd, at_return=False)


def _return(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    return attach_site(kernel, point, locate(kernel, point), prog_fd, at_return=True)


def _attach_multi(kernel: Kernel, points: Sequence[AttachPoint], prog_fd: int) -> int:
    sites = [locate(kernel, point) for point in points]
    return link(sites, prog_fd, at_return=points[0].kind == "uretprobe")


def link(sites: Sequence[ProbeSite], prog_fd: int, at_return: bool) -> int:
    """Return the fd of one link for sites of one file. OSError before 6.6, or where one of them cannot be probed."""
    offsets, semaphores = [site.offset for site in sites], [site.semaphore for site in sites]
    return links.uprobe_multi(prog_fd, sites[0].path, offsets, semaphores, at_return)


_MULTI = MultiLink(bpf.BPF_TRACE_UPROBE_MULTI, _attach_multi, lambda point: point.file, least=1)

KINDS = {
    "uprobe": Kind(bpf.BPF_PROG_TYPE_KPROBE, _entry, matching=_matching, multi=_MULTI),
    "uretprobe": Kind(bpf.BPF_PROG_TYPE_KPROBE, _return, matching=_matching, multi=_MULTI),
}
