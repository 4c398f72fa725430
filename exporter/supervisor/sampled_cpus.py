"""Programs that sample every CPU, and the CPUs that come online while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from exporter.kernel.features import Kernel
from exporter.loading.attaching import cpu_hotplug
from exporter.supervisor.managed_program import ManagedProgram


class SampledCpus:
    """Looks every ten seconds. `changed` is told of each entry that got events for more CPUs."""

    def __init__(self, entries: Sequence[ManagedProgram], changed: Callable[[ManagedProgram], None]) -> None:
        self._entries = entries
        self._changed = changed
        self._watches: dict[ManagedProgram, cpu_hotplug.CpuHotplugWatch] = {}
        self._due = 0.0

    def due(self) -> list[float]:
        return [self._due] if any(cpu_hotplug.needs_watch(entry.program) for entry in self._entries) else []

    def work(self) -> None:
        if not self.due() or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + cpu_hotplug.INTERVAL
        sampling = [entry for entry in self._entries if cpu_hotplug.needs_watch(entry.program)]
        before = self._watches
        self._watches = {
            entry: before.get(entry) or cpu_hotplug.CpuHotplugWatch(entry.spec, Kernel()) for entry in sampling
        }
        for entry, watch in self._watches.items():
            looked = watch.update(entry.program, entry.fds)
            if looked is not entry.program:
                entry.program = looked
                self._changed(entry)
