"""Enums of the running kernel by name, from its BTF (Documentation/bpf/btf.rst)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exporter.kernel.btf import KernelBtf


class KernelEnums:
    """Read the BTF once for each enum and cache only the enum: a whole BTF takes megabytes."""

    def __init__(self, btf: Path | None, known: Mapping[str, dict[int, str]] | None = None) -> None:
        """`btf`: a file of raw BTF, None for none; `known`: enums of another kernel, from a recording."""
        self._btf = btf
        self._known = dict(known or {})

    def values(self, name: str) -> dict[int, str] | None:
        """Return value -> name of `enum name`; {} if the kernel has no such enum, None if its BTF cannot be read."""
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
