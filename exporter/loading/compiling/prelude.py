"""C text that the host adds to a variant: types of kernel modules, and what reads the arguments of its USDT probes.

It goes between the shared header and the program, and into the artifact's key: whoever compiles a variant, or looks for
its artifact, puts it behind the header's text.
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
    """The shared header's text and what this variant needs behind it. RefusedError where a probe or its arguments are
    not what the program needs.

    Types are those of the modules that `requires` names, so that a program that only attaches to a module's function
    still fits in a cache made elsewhere. They are of the running kernel's modules: another target gets none, and what
    compiles without them needs none (`modules=False` is the text of such an artifact).
    """
    named = sorted({*program.requires.module, *variant.requires.module}) if modules else []
    added = "".join(_types_of_all(kernel, named)) if target.release == kernel.release else ""
    probed = replace(kernel, machine=target.arch)  # a probed file is this host's, and of that architecture
    added += usdt.readers(points(variant), program.text, probed)
    return f"{shared}\n{added}" if added else shared


def _types_of_all(kernel: Kernel, modules: Sequence[str]) -> Iterator[str]:
    """Each module's types behind those of vmlinux.h, without what one before it has defined. What is built in adds
    nothing: it is in vmlinux.h."""
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
    """libbpf calls a type, or an enumerator, whose name the kernel has for another one NAME___2: that of two modules
    are two as well."""
    names = {name for groups in _DEFINED_SECOND.findall(text) for name in groups if name}
    return re.sub(rf"\b{_SECOND}\b", lambda m: f"{m[0]}_{module}" if m[0] in names else m[0], text)
