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

_WITH_MODULES = ("kprobe", "kretprobe", "fentry", "fexit")


def header(shared: str, program: model.Program, variant: model.Variant, kernel: Kernel, target: Target) -> str:
    """The shared header's text and what this variant needs behind it. RefusedError where a probe or its arguments are
    not what the program needs.

    The types of modules are those of the running kernel, so they are left out for another target.
    """
    added = "".join(_types(kernel, module) for module in modules(program, variant) if target.release == kernel.release)
    added += usdt.readers(points(variant), program.text, kernel)
    return f"{shared}\n{added}" if added else shared


def modules(program: model.Program, variant: model.Variant) -> list[str]:
    """The kernel modules that the program names: in `requires`, and as MODULE:FUNC."""
    named = [*program.requires.module, *variant.requires.module]
    for at in variant.attach:
        if at.kind in _WITH_MODULES:
            named += [target.partition(":")[0].replace("-", "_") for target in at.targets if ":" in target]
    return sorted(set(named))


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
