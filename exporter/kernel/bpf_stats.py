"""Run statistics of BPF programs: run count, run time and missed runs (struct bpf_prog_info).

The kernel counts runs and run time of all programs of the host while they are enabled: by a descriptor
(BPF_ENABLE_STATS, 5.8, d46edd671a14) or by the sysctl kernel.bpf_stats_enabled. It always counts missed runs.
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
    """Run statistics of one program since it was loaded.

    id      the kernel's id of the program; each load gets a new one
    ns      run time in nanoseconds, summed over all CPUs
    runs    run count
    missed  runs that the recursion protection skipped; always 0 before 5.12, for kprobes and tracepoints before 6.7
    """

    id: int
    ns: int
    runs: int
    missed: int


def enable() -> int:
    """Return a descriptor that enables run statistics while it is open. Needs CAP_SYS_ADMIN; OSError EINVAL before
    5.8."""
    return bpf.call(BPF_ENABLE_STATS, EnableStats(type=BPF_STATS_RUN_TIME), "BPF_ENABLE_STATS", "")


def are_on(proc: Path = Path("/proc")) -> bool:
    """Return True if the sysctl enables run statistics. A descriptor of another process cannot be detected."""
    return sysctl.read("kernel.bpf_stats_enabled", proc) == 1


def read(prog_fd: int) -> RunStatistics:
    info = BpfProgInfo()
    bpf.object_info(prog_fd, info, "program")
    return RunStatistics(info.id, info.run_time_ns, info.run_cnt, info.recursion_misses)
