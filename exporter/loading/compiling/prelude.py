"""A variant -> the C text in front of it: the shared header, types of kernel modules, readers of USDT arguments.

The whole text is part of the artifact's cache key.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from exporter.config.bundled import bundled_dir
from exporter.kernel.features import Kernel
from exporter.loading.attaching import usdt
from exporter.loading.attaching.kind import module_types, points
from exporter.loading.compiling.needed_types import defined
from exporter.loading.refusal import refused
from exporter.loading.target import Target
from exporter.spec import ProgramSpec, VariantSpec


def shared_header() -> str:
    """Return the text of programs/include/exporter.h, which stands in front of every program."""
    return (bundled_dir() / "include" / "exporter.h").read_text()


def header(
    shared: str,
    program: ProgramSpec,
    variant: VariantSpec,
    kernel: Kernel,
    target: Target,
    *,
    modules: bool = True,
) -> str:
    """Return the shared header's text and what this variant needs behind it. RefusedError where a probe or its
    arguments are not what the program needs.

    The types are of the modules that `requires` names; a program that only attaches to a function of a module gets
    none, and so another host can compile it. They are types of the running kernel's modules: another target gets none.
    `modules=False` gives the text of an artifact that was compiled without them.
    """
    named = sorted({*program.requires.module, *variant.requires.module}) if modules else []
    added = "".join(_types_of_all(kernel, named)) if target.release == kernel.release else ""
    probed = replace(kernel, machine=target.arch)  # a probed file is of this host and of the target's architecture
    added += usdt.readers(points(variant), program.text, probed)
    return f"{shared}\n{added}" if added else shared


def _types_of_all(kernel: Kernel, modules: Sequence[str]) -> Iterator[str]:
    """Yield each module's types, to stand behind vmlinux.h, without those that a module before it defines. The types of
    a module that is built in are in vmlinux.h."""
    names: set[str] = set()
    for module in modules:
        if (kernel.btf.parent / module).exists():
            blocks = own_names(_types(kernel, module), module).split("\n\n")
            yield f'#line 1 "types of {module}"\n' + "\n\n".join(b for b in blocks if not names & set(defined(b)))
            names |= {name for block in blocks for name in defined(block)}


def _types(kernel: Kernel, module: str) -> str:
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-") as scratch:
        path = Path(scratch) / "types.h"
        try:
            module_types(kernel.btf, module).dump_c(path)
        except OSError as error:
            raise refused(f"read types of module {module}", error, kernel) from error
        return path.read_text()


_SECOND = r"(\w+___\d+)"
_DEFINED_SECOND = re.compile(
    rf"^(?:struct|union|enum) {_SECOND} ?[{{;]|^typedef .*?\b{_SECOND}[^\w]*;|^\}} {_SECOND};|^\t+{_SECOND} = ",
    re.MULTILINE,
)


def own_names(text: str, module: str) -> str:
    """Return a module's types with names of its own where libbpf writes NAME___2, for a type or enumerator whose name
    the kernel has for another one: NAME___2 of two modules are two types."""
    names = {name for groups in _DEFINED_SECOND.findall(text) for name in groups if name}
    return re.sub(rf"\b{_SECOND}\b", lambda m: f"{m[0]}_{module}" if m[0] in names else m[0], text)
