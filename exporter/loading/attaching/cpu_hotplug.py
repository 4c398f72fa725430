"""A program attached by perf_event -> the same program with events on CPUs that came online later.

The kernel opens such events for online CPUs only, and removes them from a CPU that goes offline without restoring them
(perf_event_exit_cpu()). The supervisor, which has the program fds and the rights, therefore checks every INTERVAL.
Samples between the time when a CPU comes online and the next check are missing.
"""

from __future__ import annotations

import os
from dataclasses import replace

from exporter import log
from exporter.kernel import cpus, perf_event
from exporter.kernel.features import Kernel
from exporter.loading.attaching import sampling
from exporter.loading.attaching.kind import points
from exporter.loading.attaching.kinds import AttachPoint
from exporter.loading.refusal import RefusedError
from exporter.program import Attachment, Descriptors, Program
from exporter.spec import ProgramSpec

INTERVAL = 10.0  # seconds between checks

_log = log.get()


def needs_watch(program: Program) -> bool:
    """Return True if the program samples CPUs."""
    return any(attachment.cpus for attachment in program.attachments)


class CpuHotplugWatch:
    """Keeps perf events of one running program on every CPU that is online."""

    def __init__(self, spec: ProgramSpec, kernel: Kernel) -> None:
        self._spec = spec
        self._kernel = kernel
        self._times: dict[int, int] = {}  # by fd: nanoseconds that its event had counted at the last check

    def update(self, program: Program, descriptors: Descriptors) -> Program:
        """Return the program with events on all CPUs that are online now; the same object if nothing changed. An event
        that has counted nothing since the last check is opened again; `descriptors.links` changes in place."""
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
            _log.info(
                "started to sample a CPU that came online", program=program.name, target=attachment.target, cpu=cpu
            )
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
            _log.warning("cannot sample a CPU that came online", program=program.name, cpu=cpu, error=error.text)
            return None

    def _point(self, attachment: Attachment, variant: str) -> AttachPoint:
        wanted = (attachment.kind, attachment.target, attachment.function)
        used = next(v for v in self._spec.variants if v.name == variant)
        return next(p for p in points(used) if (p.kind, p.target, p.function) == wanted)


def replace_links(
    program: Program, attachment: Attachment, links: tuple[int, ...], covered: tuple[int, ...]
) -> Program:
    """Return the program with other links, and CPUs, of one attachment."""
    changed = replace(attachment, links=links, cpus=covered, sites=len(covered))
    attachments = tuple(changed if a is attachment else a for a in program.attachments)
    return replace(program, attachments=attachments)
