"""bpf(2) by ctypes: one function per command. Constants and structures are named as in include/uapi/linux/bpf.h.

Every function raises OSError(errno, "COMMAND object: text") and nothing is retried or interpreted here, but for what
libbpf does too: BPF_PROG_LOAD is tried again on EAGAIN, and with a log when it is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from dataclasses import dataclass

# bpf(2) has a number of its own on every architecture: arch/x86/entry/syscalls/syscall_64.tbl,
# include/uapi/asm-generic/unistd.h (arm64).
_NR_BPF = {"x86_64": 321, "aarch64": 280}

BPF_MAP_CREATE = 0
BPF_MAP_LOOKUP_ELEM = 1
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_DELETE_ELEM = 3
BPF_MAP_GET_NEXT_KEY = 4
BPF_PROG_LOAD = 5
BPF_PROG_GET_NEXT_ID = 11
BPF_PROG_GET_FD_BY_ID = 13
BPF_MAP_GET_FD_BY_ID = 14
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_RAW_TRACEPOINT_OPEN = 17
BPF_BTF_LOAD = 18
BPF_BTF_GET_FD_BY_ID = 19
BPF_MAP_LOOKUP_BATCH = 24
BPF_LINK_CREATE = 28

BPF_MAP_TYPE_HASH = 1
BPF_MAP_TYPE_ARRAY = 2
BPF_MAP_TYPE_PROG_ARRAY = 3
BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4
BPF_MAP_TYPE_PERCPU_HASH = 5
BPF_MAP_TYPE_PERCPU_ARRAY = 6
BPF_MAP_TYPE_STACK_TRACE = 7
BPF_MAP_TYPE_CGROUP_ARRAY = 8
BPF_MAP_TYPE_LRU_HASH = 9
BPF_MAP_TYPE_LRU_PERCPU_HASH = 10
BPF_MAP_TYPE_LPM_TRIE = 11
BPF_MAP_TYPE_ARRAY_OF_MAPS = 12
BPF_MAP_TYPE_HASH_OF_MAPS = 13
BPF_MAP_TYPE_RINGBUF = 27

PERCPU_MAPS = frozenset({BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_LRU_PERCPU_HASH})

BPF_PROG_TYPE_KPROBE = 2
BPF_PROG_TYPE_TRACEPOINT = 5
BPF_PROG_TYPE_RAW_TRACEPOINT = 17
BPF_PROG_TYPE_TRACING = 26

BPF_TRACE_RAW_TP = 23
BPF_TRACE_FENTRY = 24
BPF_TRACE_FEXIT = 25
BPF_PERF_EVENT = 41

BPF_ANY = 0
BPF_NOEXIST = 1
BPF_EXIST = 2

BPF_F_NO_PREALLOC = 1 << 0
BPF_F_RDONLY = 1 << 3
BPF_F_WRONLY = 1 << 4

BPF_OBJ_NAME_LEN = 16
ENOTSUPP = 524  # include/linux/errno.h: the kernel's own, without a name in user space

_LOG_SIZES = (1 << 18, 1 << 22, (1 << 24) - 1)  # before 6.4 a log that does not fit is ENOSPC instead of its end (121664093803)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_u32 = ctypes.c_uint32
_u64 = ctypes.c_uint64


class VerifierError(OSError):
    """The kernel refused a program and said why in `log` (BPF_LOG_LEVEL1, its end where it is very long)."""

    def __init__(self, number: int, text: str, log: str) -> None:
        super().__init__(number, text)
        self.log = log


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map (struct bpf_map_info); the btf ids are 0 for a map without BTF."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """What the kernel says of a program (struct bpf_prog_info). The run statistics stay 0 while nobody has switched
    them on; `recursion_misses` is counted since 5.12, and for all program types since 6.7."""

    type: int
    id: int
    name: str
    map_ids: tuple[int, ...]
    run_time_ns: int
    run_cnt: int
    recursion_misses: int


class _Attr(ctypes.Structure):
    """A part of union bpf_attr. The kernel takes any length whose unknown tail is zero."""


class _MapCreate(_Attr):
    _fields_ = [
        ("map_type", _u32),
        ("key_size", _u32),
        ("value_size", _u32),
        ("max_entries", _u32),
        ("map_flags", _u32),
        ("inner_map_fd", _u32),
        ("numa_node", _u32),
        ("map_name", ctypes.c_char * BPF_OBJ_NAME_LEN),
        ("map_ifindex", _u32),
        ("btf_fd", _u32),
        ("btf_key_type_id", _u32),
        ("btf_value_type_id", _u32),
    ]


class _MapElem(_Attr):
    _fields_ = [("map_fd", _u32), ("key", _u64), ("value", _u64), ("flags", _u64)]  # value is also next_key


class _MapBatch(_Attr):
    _fields_ = [
        ("in_batch", _u64),
        ("out_batch", _u64),
        ("keys", _u64),
        ("values", _u64),
        ("count", _u32),
        ("map_fd", _u32),
        ("elem_flags", _u64),
        ("flags", _u64),
    ]


class _ProgLoad(_Attr):
    _fields_ = [
        ("prog_type", _u32),
        ("insn_cnt", _u32),
        ("insns", _u64),
        ("license", _u64),
        ("log_level", _u32),
        ("log_size", _u32),
        ("log_buf", _u64),
        ("kern_version", _u32),
        ("prog_flags", _u32),
        ("prog_name", ctypes.c_char * BPF_OBJ_NAME_LEN),
        ("prog_ifindex", _u32),
        ("expected_attach_type", _u32),
        ("prog_btf_fd", _u32),
        ("func_info_rec_size", _u32),
        ("func_info", _u64),
        ("func_info_cnt", _u32),
        ("line_info_rec_size", _u32),
        ("line_info", _u64),
        ("line_info_cnt", _u32),
        ("attach_btf_id", _u32),
        ("attach_btf_obj_fd", _u32),
    ]


class _GetId(_Attr):
    _fields_ = [("id", _u32), ("next_id", _u32), ("open_flags", _u32)]


class _Info(_Attr):
    _fields_ = [("bpf_fd", _u32), ("info_len", _u32), ("info", _u64)]


class _RawTracepoint(_Attr):
    _fields_ = [("name", _u64), ("prog_fd", _u32)]


class _BtfLoad(_Attr):
    _fields_ = [
        ("btf", _u64),
        ("btf_log_buf", _u64),
        ("btf_size", _u32),
        ("btf_log_size", _u32),
        ("btf_log_level", _u32),
    ]


class _LinkCreate(_Attr):
    _fields_ = [("prog_fd", _u32), ("target_fd", _u32), ("attach_type", _u32), ("flags", _u32)]


class _MapInfo(ctypes.Structure):  # struct bpf_map_info
    _fields_ = [
        ("type", _u32),
        ("id", _u32),
        ("key_size", _u32),
        ("value_size", _u32),
        ("max_entries", _u32),
        ("map_flags", _u32),
        ("name", ctypes.c_char * BPF_OBJ_NAME_LEN),
        ("ifindex", _u32),
        ("btf_vmlinux_value_type_id", _u32),
        ("netns_dev", _u64),
        ("netns_ino", _u64),
        ("btf_id", _u32),
        ("btf_key_type_id", _u32),
        ("btf_value_type_id", _u32),
    ]


class _ProgInfo(ctypes.Structure):  # struct bpf_prog_info
    _fields_ = [
        ("type", _u32),
        ("id", _u32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", _u32),
        ("xlated_prog_len", _u32),
        ("jited_prog_insns", _u64),
        ("xlated_prog_insns", _u64),
        ("load_time", _u64),
        ("created_by_uid", _u32),
        ("nr_map_ids", _u32),
        ("map_ids", _u64),
        ("name", ctypes.c_char * BPF_OBJ_NAME_LEN),
        ("ifindex", _u32),
        ("gpl_compatible", _u32),
        ("netns_dev", _u64),
        ("netns_ino", _u64),
        ("nr_jited_ksyms", _u32),
        ("nr_jited_func_lens", _u32),
        ("jited_ksyms", _u64),
        ("jited_func_lens", _u64),
        ("btf_id", _u32),
        ("func_info_rec_size", _u32),
        ("func_info", _u64),
        ("nr_func_info", _u32),
        ("nr_line_info", _u32),
        ("line_info", _u64),
        ("jited_line_info", _u64),
        ("nr_jited_line_info", _u32),
        ("line_info_rec_size", _u32),
        ("jited_line_info_rec_size", _u32),
        ("nr_prog_tags", _u32),
        ("prog_tags", _u64),
        ("run_time_ns", _u64),
        ("run_cnt", _u64),
        ("recursion_misses", _u64),
    ]


class _BtfInfo(ctypes.Structure):  # struct bpf_btf_info
    _fields_ = [("btf", _u64), ("btf_size", _u32), ("id", _u32), ("name", _u64), ("name_len", _u32), ("kernel_btf", _u32)]


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
) -> int:
    """The fd of a new map. Sizes in bytes; `name` is cut to what the kernel keeps (15 of [A-Za-z0-9_.])."""
    attr = _MapCreate(
        map_type=type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=flags,
        map_name=object_name(name),
        btf_fd=btf_fd,
        btf_key_type_id=key_type_id,
        btf_value_type_id=value_type_id,
    )
    return _call(BPF_MAP_CREATE, attr, "BPF_MAP_CREATE", name)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value of `key`, None if there is none. `value_size`: of a per-CPU map the value's size rounded up to 8, times
    the number of possible CPUs; the kernel writes that much whatever the caller thought."""
    k, v = _buffer(key), ctypes.create_string_buffer(value_size)
    attr = _MapElem(map_fd=fd, key=ctypes.addressof(k), value=ctypes.addressof(v))
    if not _found(BPF_MAP_LOOKUP_ELEM, attr, "BPF_MAP_LOOKUP_ELEM", fd):
        return None
    return v.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    """Set the value of `key`. A full map is E2BIG, an existing key with BPF_NOEXIST EEXIST."""
    k, v = _buffer(key), _buffer(value)
    attr = _MapElem(map_fd=fd, key=ctypes.addressof(k), value=ctypes.addressof(v), flags=flags)
    _call(BPF_MAP_UPDATE_ELEM, attr, "BPF_MAP_UPDATE_ELEM", f"fd {fd}")


def map_delete(fd: int, key: bytes) -> bool:
    """Remove `key`; False if it was not there."""
    k = _buffer(key)
    return _found(BPF_MAP_DELETE_ELEM, _MapElem(map_fd=fd, key=ctypes.addressof(k)), "BPF_MAP_DELETE_ELEM", fd)


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """The key after `key` in the kernel's order (the first one for None), None after the last. A key that was deleted
    meanwhile starts over at the first one."""
    k = None if key is None else _buffer(key)
    following = ctypes.create_string_buffer(key_size)
    attr = _MapElem(map_fd=fd, key=0 if k is None else ctypes.addressof(k), value=ctypes.addressof(following))
    if not _found(BPF_MAP_GET_NEXT_KEY, attr, "BPF_MAP_GET_NEXT_KEY", fd):
        return None
    return following.raw


def map_lookup_batch(
    fd: int, in_cursor_addr: int, out_cursor_addr: int, keys_addr: int, values_addr: int, count: int
) -> tuple[int, bool]:
    """Read up to `count` entries into the buffers at the addresses: (how many were read, whether it was the last of them).

    The cursor is opaque: 0 as `in_cursor_addr` starts, later the address of what `out_cursor_addr` received; it needs
    max(4, key size) bytes. Since 5.6. ENOSPC (a hash bucket holds more than `count` entries) is raised: ask for more.
    """
    attr = _MapBatch(
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
    raise _error(number, "BPF_MAP_LOOKUP_BATCH", f"fd {fd}")


def map_info(fd: int) -> MapInfo:
    info = _MapInfo()
    _object_info(fd, info, "map")
    return MapInfo(
        info.type,
        info.id,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.map_flags,
        info.name.decode("ascii", "replace"),
        info.btf_id,
        info.btf_key_type_id,
        info.btf_value_type_id,
    )


def map_fd_by_id(id: int, flags: int = 0) -> int:  # noqa: A002
    """Another fd of the map with this id, with BPF_F_RDONLY one that cannot change it (4.15). Needs CAP_SYS_ADMIN."""
    return _call(BPF_MAP_GET_FD_BY_ID, _GetId(id=id, open_flags=flags), "BPF_MAP_GET_FD_BY_ID", str(id))


# --- BTF ---


def btf_fd_by_id(id: int) -> int:  # noqa: A002
    """An fd of the BTF object with this id. Needs CAP_SYS_ADMIN."""
    return _call(BPF_BTF_GET_FD_BY_ID, _GetId(id=id), "BPF_BTF_GET_FD_BY_ID", str(id))


def btf_raw(fd: int) -> bytes:
    """The BTF blob behind the fd, as it was loaded."""
    size = 0
    while True:  # twice: the first answer says how much there is
        blob = ctypes.create_string_buffer(max(size, 1))
        info = _BtfInfo(btf=ctypes.addressof(blob) if size else 0, btf_size=size)
        _object_info(fd, info, "btf")
        if info.btf_size <= size:
            return blob.raw[: info.btf_size]
        size = info.btf_size


def btf_load(raw: bytes, log: bool = False) -> int:
    """The fd of a BTF object made from `raw`. With `log` the kernel's objection is in the error's text (its last line)."""
    blob = _buffer(raw)
    attr = _BtfLoad(btf=ctypes.addressof(blob), btf_size=len(raw))
    if _syscall_result := _syscall(BPF_BTF_LOAD, attr):
        if _syscall_result > 0:
            return _syscall_result
        number = ctypes.get_errno()
    if log:
        text = ctypes.create_string_buffer(1 << 16)
        attr.btf_log_buf, attr.btf_log_size, attr.btf_log_level = ctypes.addressof(text), len(text), 1
        fd = _syscall(BPF_BTF_LOAD, attr)
        if fd >= 0:
            return fd
    raise _error(number, "BPF_BTF_LOAD", "")


# --- programs and attachments ---
