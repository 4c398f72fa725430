"""usdt: FILE:PROVIDER:PROBE, every site of the probe in the file, in every process that maps it.

The kernel raises the probe's semaphore in each of these processes while the program is attached (4.20), also in one
that starts later. Where the arguments are depends on the file, so the C text that reads them is compiled with the
program: an artifact is bound to the build of the file that it was made for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache

from exporter.kernel import bpf
from exporter.kernel.features import Kernel
from exporter.kernel.near import near
from exporter.loading.attaching import target_files, uprobe, usdt_arguments
from exporter.loading.attaching.kind import AttachPoint, Kind, Link, MultiLink
from exporter.loading.attaching.uprobe import ProbeSite
from exporter.loading.compiling.source import without_comments
from exporter.loading.refusal import RefusedError
from exporter.program import Reason


def locate(kernel: Kernel, point: AttachPoint) -> list[ProbeSite]:
    """Return every site of the probe. RefusedError."""
    file, provider, name = point.target.split(":")
    with target_files.opened(kernel, point, file) as elf:
        notes = [note for note in elf.usdt_notes() if (note.provider, note.name) == (provider, name)]
        if not notes:
            raise _no_probe(point, [f"{note.provider}:{note.name}" for note in elf.usdt_notes()], str(elf.path))
        return [
            ProbeSite(
                elf.path,
                target_files.offset(point, elf, note.address, "the probe"),
                target_files.offset(point, elf, note.semaphore, "its semaphore") if note.semaphore else 0,
            )
            for note in notes
        ]


def _no_probe(point: AttachPoint, have: list[str], path: str) -> RefusedError:
    wanted = point.target.partition(":")[2]
    if not have:
        hint = "it has none: built without sys/sdt.h, or --enable-dtrace and the like"
    elif names := near(wanted, set(have)):
        hint = f"near: {', '.join(names)}"
    else:
        some = sorted(set(have))
        hint = f"it has {', '.join(some[:5])}{' and more' if len(some) > 5 else ''}"
    return RefusedError(Reason.MISSING, f"{point.step}: no probe {wanted} in {path} ({hint})")


def readers(points: Sequence[AttachPoint], text: str, kernel: Kernel) -> str:
    """Return C text for the arguments that the functions at these points read, "" where they read none.

    text  the program's C text

    The C text names the build of each file, and so another build has another artifact. A point marked optional whose
    probe is absent has no arguments. RefusedError where there are arguments to read, and no file.
    """
    pieces: list[str] = []
    bare = without_comments(text)
    for function in dict.fromkeys(point.function for point in points if point.kind == "usdt"):
        numbers = usdt_arguments.used(function, bare)
        if not numbers:  # such a program does not depend on the file, and can be compiled without it
            continue
        own = [point for point in points if point.kind == "usdt" and point.function == function]
        with ExitStack() as opened:
            builds: list[str] = []
            locations: list[usdt_arguments.Location] = []
            for point in own:
                try:
                    found, build = _locations(opened, kernel, point)
                except RefusedError:
                    if not point.optional:
                        raise
                    continue
                locations += found
                builds.append(f"// {point.target.partition(':')[2]} in build {build or 'without id'}\n")
            try:
                written = [usdt_arguments.reader(function, n, locations, kernel.machine) for n in numbers]
            except usdt_arguments.UnreadableError as error:
                hint = "see `readelf -n` for what there is"
                raise RefusedError(Reason.UNSUPPORTED, f"{own[0].step}: {error} ({hint})") from error
        if written:
            pieces += [*builds, *written]
    return f'#line 1 "usdt arguments"\n{"".join(pieces)}' if pieces else ""


def _locations(opened: ExitStack, kernel: Kernel, point: AttachPoint) -> tuple[list[usdt_arguments.Location], str]:
    file, provider, name = point.target.split(":")
    elf = opened.enter_context(target_files.opened(kernel, point, file))
    notes = [note for note in elf.usdt_notes() if (note.provider, note.name) == (provider, name)]
    if not notes:
        locate(kernel, point)  # raises, with what there is instead
    return [usdt_arguments.Location(n.address, n.arguments, cache(elf.variable)) for n in notes], elf.build_id


def _attach(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    fds: list[int] = []
    try:
        for site in locate(kernel, point):
            fds += uprobe.attach_site(kernel, point, site, prog_fd, at_return=False).fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return Link(tuple(fds))


def _attach_multi(kernel: Kernel, points: Sequence[AttachPoint], prog_fd: int) -> int:
    return uprobe.link([site for point in points for site in locate(kernel, point)], prog_fd, at_return=False)


_MULTI = MultiLink(bpf.BPF_TRACE_UPROBE_MULTI, _attach_multi, lambda point: point.file, least=1)

KINDS = {"usdt": Kind(bpf.BPF_PROG_TYPE_KPROBE, _attach, multi=_MULTI)}
