"""C text that the host adds to a variant: types of kernel modules, and what reads the arguments of its USDT probes.

It goes between the shared header and the program, and into the artifact's key: whoever compiles a variant, or looks for
its artifact, puts it behind the header's text.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from exporter.config import model
from exporter.kernel.features import Kernel
from exporter.loading.attaching import usdt
from exporter.loading.attaching.kind import module_types
from exporter.loading.hanging import points
from exporter.loading.refusal import refused
from exporter.loading.target import Target


def header(shared: str, program: model.Program, variant: model.Variant, kernel: Kernel, target: Target) -> str:
    """The shared header's text and what this variant needs behind it. RefusedError where a probe or its arguments are
    not what the program needs.

    Types are those of the modules that `requires` names, so that a program that only attaches to a module's function
    still fits in a cache made elsewhere. They are of the running kernel's modules: another target gets none.
    """
    named = sorted({*program.requires.module, *variant.requires.module})
    added = "".join(_types(kernel, module) for module in named) if target.release == kernel.release else ""
    added += usdt.readers(points(variant), program.text, kernel)
    return f"{shared}\n{added}" if added else shared


def _types(kernel: Kernel, module: str) -> str:
    """The module's types as C, behind those of vmlinux.h; "" if it is built in (they are there) or has no BTF."""
    if not (kernel.btf.parent / module).exists():
        return ""
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-") as scratch:
        path = Path(scratch) / "types.h"
        try:
            module_types(kernel.btf, module).dump_c(path)
        except OSError as error:
            raise refused(f"read types of module {module}", error, kernel) from error
        return f'#line 1 "types of {module}"\n{path.read_text()}'
