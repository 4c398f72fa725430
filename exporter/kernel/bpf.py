"""bpf(2) by ctypes: one function per command. Constants and structures are named as in include/uapi/linux/bpf.h.

Every function raises OSError(errno, "COMMAND object: text"). As in libbpf BPF_PROG_LOAD is retried on EAGAIN, and with
a log when the kernel refuses it; nothing else is retried or interpreted here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

from exporter.kernel.bpf_attr import (
    BPF_OBJ_NAME_LEN,
    Attr,
    BpfMapInfo,
    GetId,
    MapBatch,
    MapCreate,
    MapElem,
    ObjGetInfo,
    ProgLoad,
)

# bpf(2) has a number of its own on every architecture: arch/x86/entry/syscalls/syscall_64.tbl,
# include/uapi/asm-generic/unistd.h (arm64).
_NR_BPF = {"x86_64": 321, "aarch64": 280}

BPF_MAP_CREATE = 0
BPF_MAP_LOOKUP_ELEM = 1
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_DELETE_ELEM = 3
BPF_MAP_GET_NEXT_KEY = 4
BPF_PROG_LOAD = 5
BPF_MAP_GET_FD_BY_ID = 14
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_MAP_LOOKUP_BATCH = 24

BPF_MAP_TYPE_HASH = 1
BPF_MAP_TYPE_ARRAY = 2
BPF_MAP_TYPE_PERCPU_HASH = 5
BPF_MAP_TYPE_PERCPU_ARRAY = 6
BPF_MAP_TYPE_STACK_TRACE = 7
BPF_MAP_TYPE_LRU_HASH = 9
BPF_MAP_TYPE_LRU_PERCPU_HASH = 10
BPF_MAP_TYPE_LPM_TRIE = 11
BPF_MAP_TYPE_ARRAY_OF_MAPS = 12
BPF_MAP_TYPE_RINGBUF = 27

BPF_PROG_TYPE_KPROBE = 2
BPF_PROG_TYPE_TRACEPOINT = 5
BPF_PROG_TYPE_PERF_EVENT = 7
BPF_PROG_TYPE_RAW_TRACEPOINT = 17
BPF_PROG_TYPE_TRACING = 26

BPF_TRACE_RAW_TP = 23
BPF_TRACE_FENTRY = 24
BPF_TRACE_FEXIT = 25
BPF_TRACE_KPROBE_MULTI = 42
BPF_TRACE_UPROBE_MULTI = 48

BPF_ANY = 0
BPF_NOEXIST = 1

BPF_F_NO_PREALLOC = 1 << 0
BPF_F_RDONLY = 1 << 3
BPF_F_STACK_BUILD_ID = 1 << 5

ENOTSUPP = 524  # include/linux/errno.h: the kernel's own, without a name in user space

_LOG_SIZES = (
    1 << 18,
    1 << 22,
    (1 << 24) - 1,
)  # before 6.4 a log that does not fit is ENOSPC instead of its end (121664093803)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class VerifierError(OSError):
    """The kernel refused a program; `log` is the verifier log (BPF_LOG_LEVEL1; of a very long one the end)."""

    def __init__(self, number: int, text: str, log: str) -> None:
        super().__init__(number, text)
        self.log = log


# --- maps ---


def map_create(
    type: int,  # noqa: A002 (the kernel's word)
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    name: str = "",
    btf_fd: int = 0,
    key_type_id: int = 0,
    value_type_id: int = 0,
    inner_map_fd: int = 0,
) -> int:
    """Create a map and return its fd. Sizes in bytes; `name` is cut to the 15 bytes of [A-Za-z0-9_.] that the kernel
    stores. A map of maps takes maps like the one of `inner_map_fd`."""
    attr = MapCreate(
        map_type=type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=flags,
        map_name=object_name(name),
        btf_fd=btf_fd,
        btf_key_type_id=key_type_id,
        btf_value_type_id=value_type_id,
        inner_map_fd=inner_map_fd,
    )
    return call(BPF_MAP_CREATE, attr, "BPF_MAP_CREATE", name)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """Return the value of `key`, None if there is none. `value_size`: of a per-CPU map the value's size rounded up to
    8, times the number of possible CPUs; the kernel writes that many bytes, whatever the size of the buffer."""
    k, v = buffer(key), ctypes.create_string_buffer(value_size)
    attr = MapElem(map_fd=fd, key=ctypes.addressof(k), value=ctypes.addressof(v))
    if not _found(BPF_MAP_LOOKUP_ELEM, attr, "BPF_MAP_LOOKUP_ELEM", fd):
        return None
    return v.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    """Set the value of `key`. A full map is E2BIG, an existing key with BPF_NOEXIST EEXIST."""
    k, v = buffer(key), buffer(value)
    attr = MapElem(map_fd=fd, key=ctypes.addressof(k), value=ctypes.addressof(v), flags=flags)
    call(BPF_MAP_UPDATE_ELEM, attr, "BPF_MAP_UPDATE_ELEM", f"fd {fd}")


def map_delete(fd: int, key: bytes) -> bool:
    """Remove `key`; False if it was not there."""
    k = buffer(key)
    return _found(BPF_MAP_DELETE_ELEM, MapElem(map_fd=fd, key=ctypes.addressof(k)), "BPF_MAP_DELETE_ELEM", fd)


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """Return the key after `key` in the kernel's order (the first for None), None after the last. The key after a
    deleted one is the first."""
    k = None if key is None else buffer(key)
    following = ctypes.create_string_buffer(key_size)
    attr = MapElem(map_fd=fd, key=0 if k is None else ctypes.addressof(k), value=ctypes.addressof(following))
    if not _found(BPF_MAP_GET_NEXT_KEY, attr, "BPF_MAP_GET_NEXT_KEY", fd):
        return None
    return following.raw


def map_lookup_batch(
    fd: int, in_cursor_addr: int, out_cursor_addr: int, keys_addr: int, values_addr: int, count: int
) -> tuple[int, bool]:
    """Read up to `count` entries into the buffers at the addresses and return (entries read, True at the end of the
    map).

    The cursor is opaque and has max(4, key size) bytes: `in_cursor_addr` is 0 for the start, later the address that
    `out_cursor_addr` had in the call before. Since 5.6. OSError ENOSPC: a hash bucket holds more than `count` entries.
    """
    attr = MapBatch(
        in_batch=in_cursor_addr,
        out_batch=out_cursor_addr,
        keys=keys_addr,
        values=values_addr,
        count=count,
        map_fd=fd,
    )
    if _syscall(BPF_MAP_LOOKUP_BATCH, attr) >= 0:
        return attr.count, False
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return attr.count, True
    raise refusal(number, "BPF_MAP_LOOKUP_BATCH", f"fd {fd}")


def map_info(fd: int) -> BpfMapInfo:
    """Return struct bpf_map_info of a map; its btf ids are 0 for a map without BTF."""
    info = BpfMapInfo()
    object_info(fd, info, "map")
    return info


def map_fd_by_id(id: int, flags: int = 0) -> int:  # noqa: A002
    """Return another fd of the map with this id; with BPF_F_RDONLY one that cannot write (4.15). Needs
    CAP_SYS_ADMIN."""
    return call(BPF_MAP_GET_FD_BY_ID, GetId(id=id, open_flags=flags), "BPF_MAP_GET_FD_BY_ID", str(id))


# --- programs ---


def prog_load(
    type: int,  # noqa: A002
    instructions: bytes,
    license: str,  # noqa: A002
    name: str,
    expected_attach_type: int = 0,
    attach_btf_id: int = 0,
    attach_btf_obj_fd: int = 0,
    kern_version: int = 0,
    log_level: int = 0,
) -> int:
    """Load a program and return its fd. `instructions` are struct bpf_insn (8 bytes each) with the map fds filled in.

    A refusal with a log is VerifierError; one without (no right to load, unknown type) is OSError.
    `attach_btf_id` is in the BTF of `attach_btf_obj_fd` (a module's, 5.11), 0 is vmlinux.
    `kern_version` (LINUX_VERSION_CODE) is ignored since 5.0 (6c4fc209fcf9).
    """
    code, terms = buffer(instructions), buffer(license.encode("ascii") + b"\0")
    attr = ProgLoad(
        prog_type=type,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(terms),
        kern_version=kern_version,
        prog_name=object_name(name),
        expected_attach_type=expected_attach_type,
        attach_btf_id=attach_btf_id,
        attach_btf_obj_fd=attach_btf_obj_fd,
    )
    if not log_level:
        fd = _prog_load(attr)
        if fd >= 0:
            return fd
    number, text = errno.ENOSPC if log_level else ctypes.get_errno(), ""
    for size in _LOG_SIZES:
        log = ctypes.create_string_buffer(size)
        attr.log_level, attr.log_size, attr.log_buf = log_level or 1, size, ctypes.addressof(log)
        fd = _prog_load(attr)
        if fd >= 0:
            return fd
        text = _text(log)
        if ctypes.get_errno() != errno.ENOSPC:
            number = ctypes.get_errno()
            break
    error = refusal(number, "BPF_PROG_LOAD", name)
    if text.strip():
        raise VerifierError(number, str(error.strerror), text)
    raise error


# --- the call itself ---


def object_name(name: str) -> bytes:
    """Return a name that the kernel accepts: 15 bytes of [A-Za-z0-9_.] (bpf_obj_name_cpy())."""
    accepted = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name)
    return accepted.encode("ascii")[: BPF_OBJ_NAME_LEN - 1]


def strerror(number: int) -> str:
    """Return the text of an errno, including the kernel's internal ENOTSUPP."""
    return "not supported by this kernel (ENOTSUPP)" if number == ENOTSUPP else os.strerror(number)


def _syscall(command: int, attr: Attr) -> int:
    number = _NR_BPF.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2): unknown architecture {platform.machine()} (known: {', '.join(_NR_BPF)})")
    result: int = _libc.syscall(number, command, ctypes.byref(attr), ctypes.sizeof(attr))
    return result


def call(command: int, attr: Attr, verb: str, name: str) -> int:
    """Run a command and return its result. OSError has `verb` and `name` in its text."""
    result = _syscall(command, attr)
    if result < 0:
        raise refusal(ctypes.get_errno(), verb, name)
    return result


def _found(command: int, attr: Attr, verb: str, fd: int) -> bool:
    """Run a command and return False on ENOENT: the key, or the next one, does not exist."""
    if _syscall(command, attr) >= 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return False
    raise refusal(number, verb, f"fd {fd}")


def _prog_load(attr: ProgLoad) -> int:
    fd = -1
    for _ in range(5):  # the verifier gives up with EAGAIN when a signal comes (c3494801cd17); libbpf tries 5 times too
        fd = _syscall(BPF_PROG_LOAD, attr)
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return fd


def object_info(fd: int, info: ctypes.Structure, kind: str) -> None:
    """Fill `info` of a map, program or BTF object (BPF_OBJ_GET_INFO_BY_FD)."""
    attr = ObjGetInfo(bpf_fd=fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    call(BPF_OBJ_GET_INFO_BY_FD, attr, "BPF_OBJ_GET_INFO_BY_FD", f"{kind} fd {fd}")


def refusal(number: int, verb: str, name: str) -> OSError:
    """Return the OSError of a command: "COMMAND object: text"."""
    return OSError(number, f"{verb}{' ' if name else ''}{name}: {strerror(number)}")


def buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    """Return the bytes as a C buffer without a terminating zero."""
    return ctypes.create_string_buffer(content, len(content))


def _text(log: ctypes.Array[ctypes.c_char]) -> str:
    return log.value.decode("utf-8", "replace")
