"""A target that begins with FILE: -> the program or library on this host, opened as ELF; or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from exporter.kernel import libraries
from exporter.kernel.features import Kernel
from exporter.loading.attaching.kind import AttachPoint
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason

if TYPE_CHECKING:
    from exporter.kernel.elf import ElfFile


@contextmanager
def opened(kernel: Kernel, point: AttachPoint, name: str) -> Iterator[ElfFile]:
    """Yield the file of an absolute path, a library's name ("c", "libssl.so.3") or a program's. RefusedError if there
    is no such file, if a library and a program have the name, or if the code is another machine's."""
    # pyelftools takes 7 MB: only a loader that needs it imports it, not the supervisor that loaders are forked from.
    from exporter.kernel.elf import ElfFile, NotElfError

    path = libraries.find(name, machine=kernel.machine)
    if path is None:
        where = "" if "/" in name else " in ld.so's cache and directories, nor a program in /usr/bin and the like"
        raise RefusedError(Reason.MISSING, f"{point.step}: no file {name}{where} (write its absolute path)")
    if both := libraries.namesakes(name, machine=kernel.machine):
        text = f"{point.step}: {name} is the library {both[0]} and the program {both[1]}"
        raise RefusedError(Reason.MISSING, f"{text} (write the absolute path of the one that is meant)")
    try:
        with ElfFile(path, kernel.machine) as elf:
            yield elf
    except NotElfError as error:
        raise RefusedError(Reason.UNSUPPORTED, f"{point.step}: {error}") from error
    except OSError as error:
        raise refused(point.step, error, kernel) from error


def offset(point: AttachPoint, elf: ElfFile, address: int, what: str) -> int:
    """Return the offset in the file of an address. RefusedError for a damaged or half stripped file."""
    found = elf.offset(address)
    if found is None:
        raise RefusedError(
            Reason.UNSUPPORTED,
            f"{point.step}: {what} is at 0x{address:x}, which {elf.path} does not hold (a file of debug symbols?)",
        )
    return found
