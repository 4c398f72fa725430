"""Links of bpf(2): a program attached to a raw tracepoint, to its load-time target, or to many functions at once.

Closing a kprobe.multi or uprobe.multi link (include/uapi/linux/bpf.h, bpf_attr.link_create) detaches all its functions
after one grace period instead of one each.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from exporter.kernel import bpf
from exporter.kernel.bpf_attr import KprobeMulti, RawTracepointOpen, UprobeMulti, u64

BPF_RAW_TRACEPOINT_OPEN = 17
BPF_LINK_CREATE = 28

BPF_F_MULTI_RETURN = 1  # BPF_F_KPROBE_MULTI_RETURN, BPF_F_UPROBE_MULTI_RETURN


def raw_tracepoint(name: str | None, prog_fd: int) -> int:
    """Return the fd of a link of the program to the raw tracepoint `name`. OSError ENOENT: there is no such tracepoint.

    With `name` None a BPF_PROG_TYPE_TRACING program is attached to the target it was loaded for (5.5; fentry and fexit
    on arm64 since 6.4, ENOTSUPP before).
    """
    event = None if name is None else bpf.buffer(name.encode("ascii", "replace") + b"\0")
    attr = RawTracepointOpen(name=0 if event is None else ctypes.addressof(event), prog_fd=prog_fd)
    return bpf.call(BPF_RAW_TRACEPOINT_OPEN, attr, "BPF_RAW_TRACEPOINT_OPEN", name or "")


def kprobe_multi(prog_fd: int, symbols: Sequence[str], at_return: bool) -> int:
    """Return the fd of a link to the entries (or returns) of kernel functions. The program must be loaded for
    BPF_TRACE_KPROBE_MULTI.

    OSError: EOPNOTSUPP without CONFIG_FPROBE, EINVAL before 5.18, ESRCH a function is missing or named twice.
    """
    names = (ctypes.c_char_p * len(symbols))(*(symbol.encode("ascii", "replace") for symbol in symbols))
    attr = KprobeMulti(
        prog_fd=prog_fd,
        attach_type=bpf.BPF_TRACE_KPROBE_MULTI,
        multi_flags=BPF_F_MULTI_RETURN if at_return else 0,
        cnt=len(symbols),
        syms=ctypes.addressof(names),
    )
    return bpf.call(BPF_LINK_CREATE, attr, "BPF_LINK_CREATE", f"kprobe.multi of {len(symbols)} functions")


def uprobe_multi(
    prog_fd: int, path: str | os.PathLike[str], offsets: Sequence[int], counters: Sequence[int], at_return: bool
) -> int:
    """Return the fd of a link to offsets of a file, in every process that maps it, now or later. The program must be
    loaded for BPF_TRACE_UPROBE_MULTI (6.6).

    offsets   in the file, bytes
    counters  offset of the semaphore of each in the file, 0 for none (USDT); the kernel increments it while attached
    OSError: EINVAL before 6.6; EBADF, ENOENT for the file; EOPNOTSUPP for an instruction that cannot be probed, where
    a process has the file mapped.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    offset_array = (u64 * len(offsets))(*offsets)
    semaphores = (u64 * len(offsets))(*counters)
    attr = UprobeMulti(
        prog_fd=prog_fd,
        attach_type=bpf.BPF_TRACE_UPROBE_MULTI,
        path=ctypes.addressof(name),
        offsets=ctypes.addressof(offset_array),
        ref_ctr_offsets=ctypes.addressof(semaphores) if any(counters) else 0,
        cnt=len(offsets),
        multi_flags=BPF_F_MULTI_RETURN if at_return else 0,
    )
    return bpf.call(BPF_LINK_CREATE, attr, "BPF_LINK_CREATE", f"uprobe.multi of {os.fspath(path)}")
