"""BTF objects of bpf(2): loading one, reading one by id, finding that of a module (include/uapi/linux/bpf.h)."""

from __future__ import annotations

import ctypes
import errno
import os

from exporter.kernel import bpf
from exporter.kernel.bpf_attr import BpfBtfInfo, BtfLoad, GetId

BPF_BTF_LOAD = 18
BPF_BTF_GET_FD_BY_ID = 19
BPF_BTF_GET_NEXT_ID = 23
_LOG_SIZE = 1 << 18
MODULE_NAME_LEN = 64 - ctypes.sizeof(ctypes.c_ulong)


def load(raw: bytes) -> int:
    """Load `raw` and return the fd of the BTF object. The text of OSError ends with the last line of the kernel's
    log."""
    blob = bpf.buffer(raw)
    attr = BtfLoad(btf=ctypes.addressof(blob), btf_size=len(raw))
    try:
        return bpf.call(BPF_BTF_LOAD, attr, "BPF_BTF_LOAD", "")
    except OSError as error:
        refusal = error
    log = ctypes.create_string_buffer(_LOG_SIZE)
    attr.btf_log_buf, attr.btf_log_size, attr.btf_log_level = ctypes.addressof(log), len(log), 1
    try:
        return bpf.call(BPF_BTF_LOAD, attr, "BPF_BTF_LOAD", "")
    except OSError:
        last = log.value.decode("utf-8", "replace").rstrip().rpartition("\n")[2]
        raise bpf.refusal(refusal.errno or 0, "BPF_BTF_LOAD", last) from None


def by_id(id: int) -> int:  # noqa: A002
    """Return an fd of the BTF object with this id. Needs CAP_SYS_ADMIN."""
    return bpf.call(BPF_BTF_GET_FD_BY_ID, GetId(id=id), "BPF_BTF_GET_FD_BY_ID", str(id))


def read(fd: int) -> bytes:
    """Return the BTF of an fd as it was loaded."""
    size = 0
    while True:  # twice: the first answer has the size
        blob = ctypes.create_string_buffer(max(size, 1))
        info = BpfBtfInfo(btf=ctypes.addressof(blob) if size else 0, btf_size=size)
        bpf.object_info(fd, info, "btf")
        if info.btf_size <= size:
            return blob.raw[: info.btf_size]
        size = info.btf_size


def of_module(module: str) -> int:
    """Return the fd of the module's BTF (5.11), which the caller closes. OSError: ENOENT the module is not loaded or
    has no BTF; EPERM without CAP_SYS_ADMIN."""
    btf_id = 0
    while (btf_id := _next(btf_id)) != 0:
        try:
            fd = by_id(btf_id)
        except FileNotFoundError:  # unloaded meanwhile
            continue
        if _kernel_name(fd) == module:
            return fd
        os.close(fd)
    raise OSError(errno.ENOENT, f"BTF of module {module}: not loaded, or without BTF (CONFIG_DEBUG_INFO_BTF_MODULES)")


def _next(btf_id: int) -> int:
    """Return the id of the next BTF object, 0 after the last."""
    attr = GetId(id=btf_id)
    try:
        bpf.call(BPF_BTF_GET_NEXT_ID, attr, "BPF_BTF_GET_NEXT_ID", "")
    except FileNotFoundError:
        return 0
    return int(attr.next_id)


def _kernel_name(fd: int) -> str:
    """Return "vmlinux", the name of a module, or "" for the BTF of a program or map."""
    name = ctypes.create_string_buffer(MODULE_NAME_LEN)
    info = BpfBtfInfo(name=ctypes.addressof(name), name_len=len(name))
    bpf.object_info(fd, info, "btf")
    return name.value.decode("ascii", "replace") if info.kernel_btf else ""
