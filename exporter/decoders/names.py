"""Names on this host that decoders look up: cgroups, kernel symbols, interfaces, devices, users, pods."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter.kernel.cgroups import Cgroups, find_controllers, find_mount
from exporter.kernel.devices import BlockDevices
from exporter.kernel.enums import KernelEnums
from exporter.kernel.interfaces import Interfaces
from exporter.kernel.pci_ids import PciIds
from exporter.kernel.pods import LOGS, Pods
from exporter.kernel.symbols import Symbols
from exporter.kernel.users import Users
from exporter.spec import ProgramSpec

NOWHERE = Path("/dev/null")  # a root directory without entries
CGROUPS, SYMBOLS, PODS = "cgroups", "symbols", "pods"  # what root opens for others


def open_for_root(proc: Path = Path("/proc"), root: Path = Path("/")) -> dict[str, int]:
    """Return descriptors of files that only root can open: the cgroup tree, kernel symbols with their addresses and the
    pods' logs. Files that cannot be opened are left out."""
    wanted = {
        CGROUPS: (find_mount(proc), os.O_DIRECTORY),
        SYMBOLS: (proc / "kallsyms", 0),
        PODS: (root / LOGS, os.O_DIRECTORY),
    }
    opened = {}
    for name, (path, flags) in wanted.items():
        if path is not None:
            with suppress(OSError):
                opened[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    return opened


@dataclass(frozen=True, slots=True)
class Names:
    """Lookups of this host. Root opens it; any user can use it, because the files stay open. Not thread-safe.

    cgroups      the hierarchy of version 2
    controllers  the hierarchies of version 1 by controller, opened with the first lookup
    stacks       of one program: map of stack traces -> frames by id, None for no such stack
    machine      architecture of the system call numbers, as in uname(2)
    errors       lookups without an answer, by decoder; callers cache labels, so these are not samples
    """

    cgroups: Cgroups
    symbols: Symbols
    enums: KernelEnums
    interfaces: Interfaces = field(default_factory=Interfaces)
    devices: BlockDevices = field(default_factory=BlockDevices)
    users: Users = field(default_factory=Users)
    pods: Pods = field(default_factory=lambda: Pods(None))
    pci: PciIds = field(default_factory=PciIds)
    controllers: Mapping[str, Cgroups] = field(default_factory=dict)
    stacks: Mapping[str, Callable[[int], bytes | None]] = field(default_factory=dict)
    machine: str = field(default_factory=lambda: os.uname().machine)
    errors: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(
        cls,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        btf: Path | None = None,
        enums: Iterable[str] = (),
        root: Path = Path("/"),
    ) -> Names:
        """Open kallsyms, the cgroup tree and the pods' logs. Without one of them its lookups have no answer.

        btf    BTF of the kernel; None for sys/kernel/btf/vmlinux
        enums  kernel enums to read now (Chain.kernel_enums); others are read later, with the rights of that time
        """
        opened = cls.of(open_for_root(proc, root), proc, sys, btf, root)
        for name in enums:
            opened.enums.values(name)
        return opened

    @classmethod
    def of(
        cls,
        descriptors: Mapping[str, int],
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        btf: Path | None = None,
        root: Path = Path("/"),
    ) -> Names:
        """Return lookups on the descriptors of `open_for_root`, of this or another process, and take ownership of
        them."""
        return cls(
            cgroups=Cgroups(descriptors.get(CGROUPS)),
            controllers={name: Cgroups(None, mount=mount) for name, mount in find_controllers(proc).items()},
            symbols=Symbols(descriptors.get(SYMBOLS)),
            enums=KernelEnums(btf if btf is not None else sys / "kernel/btf/vmlinux"),
            devices=BlockDevices(sys),
            users=Users(root / "etc/passwd"),
            pods=Pods(root / LOGS, logs=descriptors.get(PODS)),
            pci=PciIds(root),
        )

    @classmethod
    def empty(cls) -> Names:
        """Return lookups without answers, for `check` and recorded maps. Opens nothing."""
        return cls(
            Cgroups(None),
            Symbols(None),
            KernelEnums(None),
            devices=BlockDevices(NOWHERE),
            users=Users(NOWHERE / "passwd"),
            pci=PciIds(NOWHERE),
        )

    def counting_apart(self, spec: ProgramSpec) -> Names:
        """Return the same lookups with separate `errors` for one program, 0 for each decoder whose errors are counted:
        rate() does not see a counter that begins at 1."""
        labels = [label for metric in spec.metrics for label in metric.labels or ()]
        steps = [step for label in labels for step in label.decode or ()]
        return replace(self, errors=Counter({step.name: 0 for step in steps if step.unknown in (None, "drop")}))

    def close(self) -> None:
        for hierarchy in (self.cgroups, *self.controllers.values()):
            hierarchy.close()
        self.symbols.close()
        self.pods.close()

    def cgroup_path(self, id: int, controller: str | None = None) -> str | None:  # noqa: A002
        """Return the path of a cgroup2 id (bpf_get_current_cgroup_id()) below the mount: "/",
        "/system.slice/cron.service". With a `controller` the id is one of that controller's hierarchy."""
        return self.hierarchy(controller).path(id)

    def hierarchy(self, controller: str | None) -> Cgroups:
        """Return the hierarchy of a controller, of version 1 or 2."""
        return self.controllers.get(controller, self.cgroups) if controller else self.cgroups

    def stack_frames(self, map: str, id: int) -> bytes | None:  # noqa: A002
        """Return the raw frames of a stack in a BPF_MAP_TYPE_STACK_TRACE map of the program; None for an unknown id."""
        frames = self.stacks.get(map)
        return frames(id) if frames is not None and 0 <= id < 1 << 32 else None
