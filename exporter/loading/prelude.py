"""C text that the host adds to a variant: what reads the arguments of its USDT probes.

It goes between the shared header and the program, and into the artifact's key: whoever compiles a variant, or looks for
its artifact, puts it behind the header's text.
"""

from __future__ import annotations

from exporter.config import model
from exporter.kernel.features import Kernel
from exporter.loading.attaching import usdt
from exporter.loading.hanging import points


def header(shared: str, program: model.Program, variant: model.Variant, kernel: Kernel) -> str:
    """The shared header's text and what this variant needs behind it. RefusedError where a probe or its arguments are
    not what the program needs."""
    added = usdt.readers(points(variant), program.text, kernel)
    return f"{shared}\n{added}" if added else shared
