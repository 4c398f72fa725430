"""What this process may do with BPF: capabilities (capabilities(7)), lockdown, and the sysctls that take part."""

from __future__ import annotations

from pathlib import Path

# include/uapi/linux/capability.h
CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,  # 5.8
    "CAP_BPF": 39,  # 5.8
}
# CAP_SYS_ADMIN is not only the older spelling of the other two: BPF_*_GET_FD_BY_ID wants it, and so do kprobes on
# Debian's kernels with kernel.perf_event_paranoid=3.
TO_LOAD = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN")


def held(proc: Path = Path("/proc")) -> frozenset[str]:
    """The names, out of CAPABILITIES, of those that are effective now."""
    for line in (proc / "self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for name, bit in CAPABILITIES.items() if mask >> bit & 1)
    return frozenset()


def missing_to_load(proc: Path = Path("/proc")) -> list[str]:
    """The capabilities that loading and attaching needs and this process lacks."""
    have = held(proc)
    return [name for name in TO_LOAD if name not in have]


def lockdown(sysfs: Path = Path("/sys")) -> str:
    """ "none", "integrity" or "confidentiality" (kernel_lockdown(7)); "none" where securityfs cannot say."""
    try:
        text = (sysfs / "kernel/security/lockdown").read_text()
    except OSError:
        return "none"
    return text.partition("[")[2].partition("]")[0] or "none"
