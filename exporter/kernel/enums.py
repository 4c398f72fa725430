"""Enums of the running kernel, from its BTF: name -> values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exporter.kernel.btf import KernelBtf


class KernelEnums:
    """Reads the kernel's types once for each enum asked for and keeps only the enum: a whole BTF is megabytes."""

    def __init__(self, btf: Path | None, known: Mapping[str, dict[int, str]] | None = None) -> None:
        """`btf` is a file of raw BTF; None = nothing is known but `known`, as another kernel's recording says it."""
        self._btf = btf
        self._known = dict(known or {})

    def values(self, name: str) -> dict[int, str] | None:
        """Value -> name of `enum name`; {} if this kernel has no such enum, None if its BTF cannot be read."""
        known = self._known.get(name)
        if known is None:
            known = self._read(name)
            if known is not None:
                self._known[name] = known
        return known

    def _read(self, name: str) -> dict[int, str] | None:
        if self._btf is None:
            return None
        try:
            with KernelBtf(self._btf) as btf:
                return btf.enum_values(name)
        except OSError:
            return None
