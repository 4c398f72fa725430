"""perf_event: a program runs at samples of an event, on every CPU that is online, by one fd for each CPU.

cpu_hotplug.py adds the CPUs that come online later.
"""

from __future__ import annotations

import errno
import os

from exporter.kernel import bpf, cpus, perf_event, perf_names, sysctl
from exporter.kernel.features import Kernel
from exporter.kernel.near import near
from exporter.loading.attaching.kind import AttachPoint, Kind, Link, attach_perf_event
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason

_MAX_RATE = "kernel.perf_event_max_sample_rate"


def _every_cpu(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    fds: list[int] = []
    covered: list[int] = []
    try:
        for cpu in cpus.online(kernel.sysfs):
            if (fd := on_cpu(kernel, point, prog_fd, cpu)) is not None:
                fds.append(fd)
                covered.append(cpu)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return Link(tuple(fds), tuple(covered))


def on_cpu(kernel: Kernel, point: AttachPoint, prog_fd: int, cpu: int) -> int | None:
    """Return the fd of a perf event that samples one CPU with the program; None if the CPU went offline meanwhile."""
    event = perf_names.parse(point.target)
    if event is None:
        names = near(point.target, perf_names.NAMES)
        hint = f"near: {', '.join(names)}" if names else "a name that `perf list` prints, or TYPE:CONFIG in numbers"
        raise RefusedError(Reason.MISSING, f"{point.step}: no such event ({hint})")
    try:
        opened = perf_event.open_sampling(*event, cpu, point.period, point.frequency)
    except OSError as error:
        if cpu not in cpus.online(kernel.sysfs):
            return None
        raise _refused(kernel, point, event[0], error) from error
    return attach_perf_event(kernel, point, opened, prog_fd).fds[0]


def _refused(kernel: Kernel, point: AttachPoint, kind: int, error: OSError) -> RefusedError:
    if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV, errno.ENXIO):
        hint = "virtual machines often have no counters; cpu-clock and other software events work everywhere"
        if kind == perf_names.PERF_TYPE_SOFTWARE:
            hint = "this kernel does not know it, or cannot take samples of it"
        return RefusedError(Reason.UNSUPPORTED, f"{point.step}: this CPU does not count that event ({hint})")
    if error.errno == errno.EINVAL:
        limit = sysctl.read(_MAX_RATE, kernel.proc)
        if limit is not None and point.frequency > limit:
            hint = f"sysctl {_MAX_RATE}={point.frequency}, or a lower frequency"
            return RefusedError(Reason.LIMIT, f"{point.step}: {point.frequency} Hz is above {limit}, the most ({hint})")
        hint = "no such TYPE or CONFIG here, or an event that can be counted but not sampled"
        return RefusedError(Reason.UNSUPPORTED, f"{point.step}: {error.strerror} ({hint})")
    return refused(point.step, error, kernel)


KINDS = {"perf_event": Kind(bpf.BPF_PROG_TYPE_PERF_EVENT, _every_cpu)}
