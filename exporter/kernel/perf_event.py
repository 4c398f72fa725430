"""perf_event_open(2): BPF programs at kprobes, uprobes, tracepoints and samples. Closing the fd detaches the program.

Kprobes and uprobes are made through their PMU (Linux 4.17, Documentation/ABI/testing/
sysfs-bus-event_source-devices-...; struct perf_event_attr in include/uapi/linux/perf_event.h) and never through
tracefs' kprobe_events or uprobe_events: a probe that is written there outlives the process, a probe of the PMU ends
with its fd.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from pathlib import Path

from exporter.kernel import cpus

_NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}

PERF_EVENT_IOC_ENABLE = 0x2400  # _IO('$', 0)
PERF_EVENT_IOC_SET_BPF = 0x40042408  # _IOW('$', 8, __u32)
PERF_FLAG_FD_CLOEXEC = 1 << 3
PERF_TYPE_TRACEPOINT = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

u32 = ctypes.c_uint32
u64 = ctypes.c_uint64


class PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr up to PERF_ATTR_SIZE_VER1 (72 bytes)."""

    _fields_ = [
        ("type", u32),
        ("size", u32),
        ("config", u64),
        ("sample_period", u64),
        ("sample_type", u64),
        ("read_format", u64),
        ("bits", u64),
        ("wakeup_events", u32),
        ("bp_type", u32),
        ("config1", u64),  # kprobe PMU: the address of the function's name; uprobe PMU: of the file's
        ("config2", u64),  # kprobe PMU: the offset in it; uprobe PMU: the offset in the file
    ]


# Bits of PerfEventAttr.bits
_DISABLED = 1 << 0
_FREQ = 1 << 10
_TIME_ENABLED = 1 << 0  # PERF_FORMAT_TOTAL_TIME_ENABLED
_REF_CTR_SHIFT = 32  # PERF_UPROBE_REF_CTR_OFFSET_SHIFT; .../devices/uprobe/format/ref_ctr_offset says config:32-63


def kprobe_type(sysfs: Path = cpus.SYSFS) -> int | None:
    """Return the type of the kprobe PMU; None on a kernel without kprobes (CONFIG_KPROBE_EVENTS)."""
    return _pmu_type("kprobe", sysfs)


def uprobe_type(sysfs: Path = cpus.SYSFS) -> int | None:
    """Return the type of the uprobe PMU; None on a kernel without uprobes (CONFIG_UPROBE_EVENTS)."""
    return _pmu_type("uprobe", sysfs)


def _pmu_type(name: str, sysfs: Path) -> int | None:
    try:
        return int((sysfs / "bus/event_source/devices" / name / "type").read_text())
    except FileNotFoundError:
        return None


def open_kprobe(function: str, at_return: bool, sysfs: Path = cpus.SYSFS) -> int:
    """Return the fd of a perf event at the entry (or the return) of a kernel function, "FUNC" or "MODULE:FUNC".

    OSError: ENODEV without kprobes; ENOENT no such function; EADDRNOTAVAIL several of that name (b022f0c7e404);
    EINVAL a function that must not be probed (notrace, nokprobe).
    """
    number = kprobe_type(sysfs)
    if number is None:
        raise OSError(errno.ENODEV, "perf_event_open kprobe: this kernel has no kprobe PMU (CONFIG_KPROBE_EVENTS)")
    name = ctypes.create_string_buffer(function.encode("ascii", "replace"))
    # Bit 0 of config: .../devices/kprobe/format/retprobe says config:0 on every kernel that has the PMU.
    attr = PerfEventAttr(type=number, config=int(at_return), config1=ctypes.addressof(name))
    return _open(attr, f"kprobe {function}", sysfs)


def open_uprobe(
    path: str | os.PathLike[str], offset: int, at_return: bool, semaphore: int = 0, sysfs: Path = cpus.SYSFS
) -> int:
    """Return the fd of a perf event at an offset of a file in every process, or at the return of the function there.
    `semaphore`: offset in the file of a USDT probe's counter, which the kernel increments while the event exists.

    OSError: ENODEV without uprobes; ENOENT no such file; EINVAL a file that cannot be mapped; EOPNOTSUPP an
    instruction that cannot be probed, which is detected only if a process has the file mapped already.
    """
    number = uprobe_type(sysfs)
    if number is None:
        raise OSError(errno.ENODEV, "perf_event_open uprobe: this kernel has no uprobe PMU (CONFIG_UPROBE_EVENTS)")
    name = ctypes.create_string_buffer(os.fsencode(path))
    config = int(at_return) | semaphore << _REF_CTR_SHIFT
    attr = PerfEventAttr(type=number, config=config, config1=ctypes.addressof(name), config2=offset)
    return _open(attr, f"uprobe {os.fspath(path)}:0x{offset:x}", sysfs)


def open_sampling(type: int, config: int, cpu: int, period: int, frequency: int) -> int:  # noqa: A002
    """Return the fd of an event that overflows on one CPU once in `period` events, or `frequency` times a second: one
    of the two is 0. It is disabled until `set_bpf`.

    OSError: ENOENT, EOPNOTSUPP, ENODEV the CPU does not have this event, or is offline; EINVAL a frequency above
    kernel.perf_event_max_sample_rate.
    """
    bits = _DISABLED | (_FREQ if frequency else 0)
    attr = PerfEventAttr(
        type=type, config=config, sample_period=frequency or period, read_format=_TIME_ENABLED, bits=bits
    )
    return _call(attr, cpu, f"event {type}:{config} on CPU {cpu}")


def time_enabled(event_fd: int) -> int:
    """Return the nanoseconds that an event of `open_sampling` was enabled. They stop when the event's CPU goes offline:
    the kernel removes the event from the CPU and does not add it again (perf_event_exit_cpu())."""
    return int(struct.unpack_from("=QQ", os.read(event_fd, 16))[1])


def open_tracepoint(tracepoint_id: int, sysfs: Path = cpus.SYSFS) -> int:
    """Return the fd of a perf event at the tracepoint with this id (tracefs events/CATEGORY/EVENT/id)."""
    return _open(PerfEventAttr(type=PERF_TYPE_TRACEPOINT, config=tracepoint_id), f"tracepoint {tracepoint_id}", sysfs)


def set_bpf(event_fd: int, prog_fd: int) -> None:
    """Attach the program to the event and enable it. Kprobe and tracepoint programs run on every CPU: they are attached
    to the kernel object of the event, not to its CPU or task (kernel/events/core.c, perf_event_attach_bpf_prog())."""
    try:
        fcntl.ioctl(event_fd, PERF_EVENT_IOC_SET_BPF, prog_fd)
        fcntl.ioctl(event_fd, PERF_EVENT_IOC_ENABLE, 0)
    except OSError as error:
        raise OSError(error.errno, f"ioctl PERF_EVENT_IOC_SET_BPF: {error.strerror}") from None


def _open(attr: PerfEventAttr, name: str, sysfs: Path) -> int:
    attr.sample_period, attr.wakeup_events = 1, 1
    return _call(attr, cpus.online(sysfs)[0], name)  # CPU 0 may be offline


def _call(attr: PerfEventAttr, cpu: int, name: str) -> int:
    number = _NR_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        known = ", ".join(_NR_PERF_EVENT_OPEN)
        raise OSError(errno.ENOSYS, f"perf_event_open(2): unknown architecture {platform.machine()} (known: {known})")
    attr.size = ctypes.sizeof(PerfEventAttr)
    fd: int = _libc.syscall(number, ctypes.byref(attr), -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"perf_event_open {name}: {os.strerror(ctypes.get_errno())}")
    return fd
