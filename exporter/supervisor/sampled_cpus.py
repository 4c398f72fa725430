"""Programs that sample every CPU, and the CPUs that come online while they run."""

from __future__ import annotations

import time

from exporter.kernel.features import Kernel
from exporter.loading.attaching import cpu_hotplug
from exporter.supervisor.managed_program import ManagedProgram, Programs


class SampledCpus:
    """A part of the supervisor's loop: opens events on new CPUs, every ten seconds."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._watches: dict[ManagedProgram, cpu_hotplug.CpuHotplugWatch] = {}
        self._due = 0.0

    def due(self) -> list[float]:
        return [self._due] if any(cpu_hotplug.needs_watch(managed.program) for managed in self._programs) else []

    def work(self) -> None:
        if not self.due() or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + cpu_hotplug.INTERVAL
        sampling = [managed for managed in self._programs if cpu_hotplug.needs_watch(managed.program)]
        before = self._watches
        self._watches = {
            managed: before.get(managed) or cpu_hotplug.CpuHotplugWatch(managed.spec, Kernel()) for managed in sampling
        }
        for managed, watch in self._watches.items():
            program = watch.update(managed.program, managed.fds)
            if program is not managed.program:
                managed.program = program
                self._programs.send(managed)
