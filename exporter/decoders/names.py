"""Names of things on this host that decoders ask for: cgroups, kernel symbols, interfaces, enums of the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter.kernel.cgroups import Cgroups
from exporter.kernel.enums import KernelEnums
from exporter.kernel.interfaces import Interfaces
from exporter.kernel.symbols import Symbols


@dataclass(frozen=True, slots=True)
class Names:
    """Lookups of this host. Open it as root, use it as anybody: what only root may open is held open.

    errors  answers that a decoder did not have, by decoder; labels are cached by those who call, so this counts
            lookups, not samples
    """

    cgroups: Cgroups
    symbols: Symbols
    enums: KernelEnums
    interfaces: Interfaces = field(default_factory=Interfaces)
    errors: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(
        cls,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        btf: Path | None = None,
        enums: Iterable[str] = (),
    ) -> Names:
        """Opens kallsyms and the cgroup tree under these roots; what cannot be opened has no names, and is no error.

        btf    the kernel's types; None = sys/kernel/btf/vmlinux
        enums  kernel enums read at once (Chain.kernel_enums); others are read when asked for, if that is still allowed
        """
        opened = cls(
            cgroups=Cgroups.open(proc),
            symbols=Symbols.open(proc),
            enums=KernelEnums(btf if btf is not None else sys / "kernel/btf/vmlinux"),
        )
        for name in enums:
            opened.enums.values(name)
        return opened

    @classmethod
    def empty(cls) -> Names:
        """Names of a host without cgroups, symbols and BTF: nothing is opened. For `check` and recorded maps."""
        return cls(Cgroups(None), Symbols(None), KernelEnums(None))

    def counting_apart(self) -> Names:
        """The same lookups with an `errors` of its own: one for each program."""
        return replace(self, errors=Counter())

    def close(self) -> None:
        self.cgroups.close()
        self.symbols.close()

    def cgroup_path(self, id: int) -> str | None:  # noqa: A002
        """Path of a cgroup2 id (bpf_get_current_cgroup_id()) below the mount: "/", "/system.slice/cron.service"."""
        return self.cgroups.path(id)

    def symbol(self, address: int) -> str | None:
        """Name of the kernel function that holds this address."""
        return self.symbols.name(address)

    def interface(self, index: int) -> str | None:
        """Name of an interface of this process's network namespace."""
        return self.interfaces.name(index)

    def kernel_enum(self, name: str) -> dict[int, str] | None:
        """Values of `enum name`; {} if this kernel has no such enum, None if its types cannot be read."""
        return self.enums.values(name)
