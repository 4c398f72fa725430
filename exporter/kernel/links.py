"""Links of bpf(2): a program at a raw tracepoint, where it was loaded for, or at many functions at once.

Those for many, kprobe.multi and uprobe.multi (include/uapi/linux/bpf.h, bpf_attr.link_create), detach all of them after
one grace period instead of one for each.
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
    """The fd of a link: the program runs at the raw tracepoint `name` (ENOENT: no such one) until it is closed.

    None attaches a BPF_PROG_TYPE_TRACING program where it was loaded for (5.5; fentry and fexit on arm64 since 6.4,
    ENOTSUPP before).
    """
    event = None if name is None else bpf.buffer(name.encode("ascii", "replace") + b"\0")
    attr = RawTracepointOpen(name=0 if event is None else ctypes.addressof(event), prog_fd=prog_fd)
    return bpf.call(BPF_RAW_TRACEPOINT_OPEN, attr, "BPF_RAW_TRACEPOINT_OPEN", name or "")


def kprobe_multi(prog_fd: int, symbols: Sequence[str], at_return: bool) -> int:
    """The fd of a link to the entries (or returns) of kernel functions. The program is loaded for
    BPF_TRACE_KPROBE_MULTI.

    OSError: EOPNOTSUPP without CONFIG_FPROBE, EINVAL before 5.18, ESRCH one of them is missing or named twice.
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
    """The fd of a link to places in a file, for every process that maps it, now or later. The program is loaded for
    BPF_TRACE_UPROBE_MULTI (6.6).

    offsets   in the file, bytes
    counters  offset of each one's semaphore in the file, 0 for none (USDT); the kernel raises it while attached
    OSError: EINVAL before 6.6; EBADF, ENOENT for the file; EOPNOTSUPP for an instruction that cannot be probed, where
    a process has the file mapped.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    places = (u64 * len(offsets))(*offsets)
    semaphores = (u64 * len(offsets))(*counters)
    attr = UprobeMulti(
        prog_fd=prog_fd,
        attach_type=bpf.BPF_TRACE_UPROBE_MULTI,
        path=ctypes.addressof(name),
        offsets=ctypes.addressof(places),
        ref_ctr_offsets=ctypes.addressof(semaphores) if any(counters) else 0,
        cnt=len(offsets),
        multi_flags=BPF_F_MULTI_RETURN if at_return else 0,
    )
    return bpf.call(BPF_LINK_CREATE, attr, "BPF_LINK_CREATE", f"uprobe.multi of {os.fspath(path)}")
