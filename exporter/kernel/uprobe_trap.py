"""The cost of a uprobe beside its program: the trap into the kernel and back, measured on a test function.

Run statistics of BPF do not include the trap. The function is a page of machine code in a memfd, so that no other
process runs into the probe. The kernel single-steps its instruction with a second trap, as it does most; the few that
it emulates (push, nop: arch/x86/kernel/uprobes.c) cost a tenth of that.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import time
from collections.abc import Callable

from exporter.kernel import bpf, bpf_insn, perf_event

# xor eax, eax; ret -- and mov w0, #0; ret
_CODE = {"x86_64": bytes.fromhex("31c0c3"), "aarch64": struct.pack("<II", 0x52800000, 0xD65F03C0)}
_CALLS = 500  # in a row: 8 ms where a trap takes 16 us
_ROUNDS = 5  # the fastest counts: other load of the host only adds


def measure() -> tuple[float, float]:
    """Return the seconds that one event adds to the process that triggers it: of a uprobe, of a uretprobe. The caller
    is a child with one thread that ends afterwards: the page stays mapped. OSError without uprobes or the right to
    them."""
    code = _CODE.get(platform.machine())
    if code is None:
        raise OSError(errno.ENOSYS, f"uprobe trap: no function to probe on {platform.machine()}")
    memfd = os.memfd_create("uprobe_trap", os.MFD_CLOEXEC)
    os.write(memfd, code)
    page = mmap.mmap(memfd, len(code), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    call = _function(page)
    plain = _seconds_of(call)
    program = bpf.prog_load(bpf.BPF_PROG_TYPE_KPROBE, bpf_insn.RETURN_0, "GPL", "uprobe_trap")
    try:
        entry, back = (_probed(call, memfd, program, at_return) for at_return in (False, True))
    finally:
        os.close(program)
        os.close(memfd)
    return max(0.0, entry - plain), max(0.0, back - plain)


def _function(page: mmap.mmap) -> Callable[[], object]:
    """Return the code at the start of a page as a function. from_buffer() refuses a page that cannot be written."""
    libc = ctypes.PyDLL(None)
    libc.PyObject_GetBuffer.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    view = (ctypes.c_void_p * 12)()  # Py_buffer; its first field is the address
    if libc.PyObject_GetBuffer(page, ctypes.byref(view), 0):
        raise OSError(errno.EFAULT, "uprobe trap: a mapped page has no address")
    return ctypes.CFUNCTYPE(ctypes.c_int)(view[0] or 0)


def _probed(call: Callable[[], object], memfd: int, program: int, at_return: bool) -> float:
    event = perf_event.open_uprobe(f"/proc/self/fd/{memfd}", 0, at_return)
    try:
        perf_event.set_bpf(event, program)
        return _seconds_of(call)
    finally:
        os.close(event)


def _seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds of one call in the fastest round."""
    rounds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_CALLS):
            call()
        rounds.append(time.perf_counter() - began)
    return min(rounds) / _CALLS
