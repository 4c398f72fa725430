"""CPUs that come online after a program was attached: a perf_event that samples every CPU gets its fd for them too.

The kernel opens such events for online CPUs only, and takes them off a CPU that goes offline without putting them back
(perf_event_exit_cpu()). So somebody has to look from time to time, and that is the supervisor, which has the program
fds and the rights. Samples between a CPU's coming online and the next look are missing.
"""

from __future__ import annotations

import os
from dataclasses import replace

from exporter import log
from exporter.kernel import cpus, perf_event
from exporter.kernel.features import Kernel
from exporter.loading.attaching import sampling
from exporter.loading.attaching.kind import points
from exporter.loading.attaching.kinds import Point
from exporter.loading.refusal import RefusedError
from exporter.program import Attachment, Descriptors, Program
from exporter.spec import ProgramSpec

INTERVAL = 10.0  # seconds between looks

_log = log.get()


def needs_watch(program: Program) -> bool:
    return any(attachment.cpus for attachment in program.attachments)


class CpuHotplugWatch:
    """Looks after the perf events of one running program."""

    def __init__(self, spec: ProgramSpec, kernel: Kernel) -> None:
        self._spec = spec
        self._kernel = kernel
        self._times: dict[int, int] = {}  # by fd: nanoseconds that its event had counted at the last look

    def look(self, program: Program, descriptors: Descriptors) -> Program:
        """The program with events for all CPUs that are online now, the same object if nothing had to be done. Events
        that have stood still since the last look are opened again; `descriptors.links` changes in place."""
        online = cpus.online(self._kernel.sysfs)
        for attachment in program.attachments:
            if attachment.cpus:
                program = self._cover(program, attachment, descriptors, online)
        return program

    def _cover(self, program: Program, attachment: Attachment, descriptors: Descriptors, online: list[int]) -> Program:
        alive = {
            cpu: link
            for cpu, link in zip(attachment.cpus, attachment.links, strict=True)
            if self._is_alive(descriptors.links[link])
        }
        if list(alive) == online:
            return program
        links, covered = list(attachment.links), list(attachment.cpus)
        for cpu in (cpu for cpu in online if cpu not in alive):
            fd = self._open(attachment, program, descriptors, cpu)
            if fd is None:
                continue
            _log.info("sampling a CPU that came online", program=program.name, target=attachment.target, cpu=cpu)
            if cpu in covered:
                link = links[covered.index(cpu)]
                self._times.pop(descriptors.links[link], None)
                os.close(descriptors.links[link])
                descriptors.links[link] = fd
            else:
                links.append(len(descriptors.links))
                covered.append(cpu)
                descriptors.links.append(fd)
        if tuple(covered) == attachment.cpus:
            return program
        return replace_links(program, attachment, tuple(links), tuple(covered))

    def _is_alive(self, fd: int) -> bool:
        now = perf_event.time_enabled(fd)
        before = self._times.get(fd, -1)
        self._times[fd] = now
        return now > before

    def _open(self, attachment: Attachment, program: Program, descriptors: Descriptors, cpu: int) -> int | None:
        point = self._point(attachment, program.variant)
        try:
            return sampling.on_cpu(self._kernel, point, descriptors.programs[attachment.function], cpu)
        except RefusedError as error:
            _log.warning("a CPU is not sampled", program=program.name, cpu=cpu, why=error.text)
            return None

    def _point(self, attachment: Attachment, variant: str) -> Point:
        wanted = (attachment.kind, attachment.target, attachment.function)
        used = next(v for v in self._spec.variants if v.name == variant)
        return next(p for p in points(used) if (p.kind, p.target, p.function) == wanted)


def replace_links(
    program: Program, attachment: Attachment, links: tuple[int, ...], covered: tuple[int, ...]
) -> Program:
    """The program with other links, and CPUs, of one attachment."""
    changed = replace(attachment, links=links, cpus=covered, places=len(covered))
    attachments = tuple(changed if a is attachment else a for a in program.attachments)
    return replace(program, attachments=attachments)
