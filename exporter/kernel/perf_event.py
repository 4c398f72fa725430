"""perf_event_open(2): BPF programs at kprobes and at tracepoints. Closing the fd detaches the program.

Kprobes are made through their PMU (Linux 4.17, Documentation/ABI/testing/sysfs-bus-event_source-devices-...; struct
perf_event_attr in include/uapi/linux/perf_event.h) and never through tracefs' kprobe_events: what is written there
outlives the process, a probe of the PMU goes with its fd.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
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
    """struct perf_event_attr as far as PERF_ATTR_SIZE_VER1 (72 bytes)."""

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
        ("config1", u64),  # kprobe PMU: the address of the function's name
        ("config2", u64),  # kprobe PMU: the offset in it
    ]


def kprobe_type(sysfs: Path = cpus.SYSFS) -> int | None:
    """The number of the kprobe PMU; None on a kernel without kprobes (CONFIG_KPROBE_EVENTS)."""
    try:
        return int((sysfs / "bus/event_source/devices/kprobe/type").read_text())
    except FileNotFoundError:
        return None


def open_kprobe(function: str, at_return: bool, sysfs: Path = cpus.SYSFS) -> int:
    """The fd of a perf event at the entry (or the return) of a kernel function, "FUNC" or "MODULE:FUNC".

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


def open_tracepoint(identity: int, sysfs: Path = cpus.SYSFS) -> int:
    """The fd of a perf event at the tracepoint with this id (tracefs events/CATEGORY/EVENT/id)."""
    return _open(PerfEventAttr(type=PERF_TYPE_TRACEPOINT, config=identity), f"tracepoint {identity}", sysfs)


def set_bpf(event_fd: int, prog_fd: int) -> None:
    """Run the program at the event, on every CPU: kprobe and tracepoint programs hang on the event's kernel object and
    not on the CPU or task that perf_event_open was asked for (kernel/events/core.c, perf_event_attach_bpf_prog())."""
    try:
        fcntl.ioctl(event_fd, PERF_EVENT_IOC_SET_BPF, prog_fd)
        fcntl.ioctl(event_fd, PERF_EVENT_IOC_ENABLE, 0)
    except OSError as error:
        raise OSError(error.errno, f"ioctl PERF_EVENT_IOC_SET_BPF: {error.strerror}") from None


def _open(attr: PerfEventAttr, name: str, sysfs: Path) -> int:
    number = _NR_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        known = ", ".join(_NR_PERF_EVENT_OPEN)
        raise OSError(errno.ENOSYS, f"perf_event_open(2): unknown architecture {platform.machine()} (known: {known})")
    attr.size = ctypes.sizeof(PerfEventAttr)
    attr.sample_period, attr.wakeup_events = 1, 1
    cpu = cpus.online(sysfs)[0]  # any that runs; CPU 0 may be offline
    fd: int = _libc.syscall(number, ctypes.byref(attr), -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"perf_event_open {name}: {os.strerror(ctypes.get_errno())}")
    return fd
