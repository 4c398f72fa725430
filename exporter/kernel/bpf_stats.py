"""Run statistics of BPF programs: how often they ran, how long, and how often the kernel passed them over.

Run time and count move only while somebody has switched them on, and then for every program of the host: by a
descriptor (BPF_ENABLE_STATS, 5.8, d46edd671a14) or by the sysctl kernel.bpf_stats_enabled. Missed runs are counted
always.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.kernel import bpf, sysctl
from exporter.kernel.bpf_attr import BpfProgInfo, EnableStats

BPF_ENABLE_STATS = 32
BPF_STATS_RUN_TIME = 0


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """Of one program since it was loaded.

    id      the kernel's, drawn anew for each load
    ns      nanoseconds that its counted runs took, over all CPUs
    runs    counted runs
    missed  runs left out because it, or another one, ran on that CPU; before 5.12 always 0, and for kprobes and
            tracepoints before 6.7
    """

    id: int
    ns: int
    runs: int
    missed: int


def enable() -> int:
    """A descriptor while which is open run times are taken. Needs CAP_SYS_ADMIN; OSError, EINVAL before 5.8."""
    return bpf.call(BPF_ENABLE_STATS, EnableStats(type=BPF_STATS_RUN_TIME), "BPF_ENABLE_STATS", "")


def are_on(proc: Path = Path("/proc")) -> bool:
    """Whether the sysctl has them on. Nobody can ask whether somebody else's descriptor has."""
    return sysctl.read("kernel.bpf_stats_enabled", proc) == 1


def read(prog_fd: int) -> RunStatistics:
    info = BpfProgInfo()
    bpf.object_info(prog_fd, info, "program")
    return RunStatistics(info.id, info.run_time_ns, info.run_cnt, info.recursion_misses)
