"""Capabilities that this process lacks (capabilities(7)), and the lockdown mode (kernel_lockdown(7))."""

from __future__ import annotations

from pathlib import Path

from exporter.kernel import credentials

# CAP_SYS_ADMIN does more than replace the other two before 5.8: BPF_*_GET_FD_BY_ID needs it, and so do kprobes on
# Debian's kernels with kernel.perf_event_paranoid=3. Numbers: include/uapi/linux/capability.h.
TO_LOAD = {"CAP_BPF": credentials.CAP_BPF, "CAP_PERFMON": 38, "CAP_SYS_ADMIN": 21}

ADVICE = "run as root, or give the capabilities to the service"

_TO_BECOME = {"CAP_SETUID": 7, "CAP_SETGID": credentials.CAP_SETGID, "CAP_KILL": 5}


def missing_to_load(proc: Path = Path("/proc")) -> list[str]:
    """Return the capabilities that loading and attaching need and this process lacks."""
    have = credentials.read(proc).effective
    return [name for name, number in TO_LOAD.items() if number not in have]


def refusal_to_load(proc: Path = Path("/proc")) -> str:
    """Return why this process may not load programs; "" if it may."""
    missing = missing_to_load(proc)
    return f"loading BPF programs needs {', '.join(missing)}: {ADVICE}" if missing else ""


def missing_to_become(uid: int, gid: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the capabilities that this process lacks to run a child as this user and group, and to kill it."""
    have = credentials.read(proc)
    other = set(have.uids) != {uid}
    needed = {"CAP_SETUID": other, "CAP_SETGID": set(have.gids) != {gid}, "CAP_KILL": other}
    return [name for name, is_needed in needed.items() if is_needed and _TO_BECOME[name] not in have.effective]


def lockdown(sysfs: Path = Path("/sys")) -> str:
    """Return "none", "integrity" or "confidentiality"; "none" where securityfs is not mounted."""
    try:
        text = (sysfs / "kernel/security/lockdown").read_text()
    except OSError:
        return "none"
    return text.partition("[")[2].partition("]")[0] or "none"
