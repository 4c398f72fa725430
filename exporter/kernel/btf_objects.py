"""BTF that is loaded in the kernel, by name: the fd of a module's types, which programs bound to them need."""

from __future__ import annotations

import ctypes
import errno
import os

from exporter.kernel import bpf
from exporter.kernel.bpf_attr import BpfBtfInfo, GetId, ObjGetInfo

BPF_BTF_GET_NEXT_ID = 23
MODULE_NAME_LEN = 64 - ctypes.sizeof(ctypes.c_ulong)


def of_module(module: str) -> int:
    """The fd of the module's BTF (5.11), the caller's to close. OSError: ENOENT it is not loaded or has no BTF; EPERM
    without CAP_SYS_ADMIN."""
    identity = 0
    while (identity := _next(identity)) != 0:
        try:
            fd = bpf.btf_fd_by_id(identity)
        except FileNotFoundError:  # it went meanwhile
            continue
        if _kernel_name(fd) == module:
            return fd
        os.close(fd)
    raise OSError(errno.ENOENT, f"BTF of module {module}: not loaded, or without BTF (CONFIG_DEBUG_INFO_BTF_MODULES)")


def _next(identity: int) -> int:
    """The id after this one, 0 after the last."""
    attr = GetId(id=identity)
    try:
        bpf.call(BPF_BTF_GET_NEXT_ID, attr, "BPF_BTF_GET_NEXT_ID", "")
    except FileNotFoundError:
        return 0
    return int(attr.next_id)


def _kernel_name(fd: int) -> str:
    """ "vmlinux", a module's name, "" for the BTF of a program or map."""
    name = ctypes.create_string_buffer(MODULE_NAME_LEN)
    info = BpfBtfInfo(name=ctypes.addressof(name), name_len=len(name))
    attr = ObjGetInfo(bpf_fd=fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    bpf.call(bpf.BPF_OBJ_GET_INFO_BY_FD, attr, "BPF_OBJ_GET_INFO_BY_FD", f"btf fd {fd}")
    return name.value.decode("ascii", "replace") if info.kernel_btf else ""
