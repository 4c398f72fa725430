"""BTF of a kernel -> the source tree that bcc needs, without a header package and with the kernel's own layouts.

bcc includes some headers in front of every program (kbuild_helper.cc, loader.cc and export/helpers.h, the same list
from 0.26 to 0.37). In this tree linux/kconfig.h has the types of the kernel, as libbpf writes BTF in C, and macros that
BTF lacks; the other headers are empty. The types are all of them, or those in the file that the macro EXPORTER_TYPES
names (needed_types.py). BCC_KERNEL_SOURCE names the tree; it also keeps bcc from unpacking headers under a name in /tmp
that any user can create first (CVE-2024-2314).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from exporter.kernel.btf import KernelBtf
from exporter.kernel.ownership import other_writers
from exporter.loading.compiling import needed_types
from exporter.loading.target import Target

_FORCED = (
    "uapi/linux/bpf.h",
    "uapi/linux/if_packet.h",
    "uapi/linux/if_ether.h",
    "linux/version.h",
    "linux/log2.h",
    "asm/page.h",
)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<([^>\n]+)>", re.MULTILINE)
_UNUSED_SECONDS = 30 * 86400
_SIZES = "sizes"  # the file that is written last: the sizes of the others

# How libbpf writes padding. clang makes one integer of a run of bit-fields. bcc lays structs out for the host, but LLVM
# counts bytes for BPF: above 64 bits the two align that integer differently, and members behind it are read 16 bytes
# off, which no static assert finds (struct rq, sched_entity; in 7.2 task_struct). A named member is no bit-field.
_PADDING = re.compile(r"\blong: 64;")

# Helpers that bcc declares and an older kernel's BTF lacks, in the order of enum bpf_func_id from 156 on (5.11). The
# ids are ABI, and 211 was the last one (6.2): later functions are kfuncs.
_FIRST_HELPER = 156
_HELPERS = """
    task_storage_get task_storage_delete get_current_task_btf bprm_opts_set ktime_get_coarse_ns ima_inode_hash
    sock_from_file check_mtu for_each_map_elem snprintf sys_bpf btf_find_by_name_kind sys_close timer_init
    timer_set_callback timer_start timer_cancel get_func_ip get_attach_cookie task_pt_regs get_branch_snapshot
    trace_vprintk skc_to_unix_sock kallsyms_lookup_name find_vma loop strncmp get_func_arg get_func_ret
    get_func_arg_cnt get_retval set_retval xdp_get_buff_len xdp_load_bytes xdp_store_bytes copy_from_user_task
    skb_set_tstamp ima_file_hash kptr_xchg map_lookup_percpu_elem skc_to_mptcp_sock dynptr_from_mem
    ringbuf_reserve_dynptr ringbuf_submit_dynptr ringbuf_discard_dynptr dynptr_read dynptr_write dynptr_data
    tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6
    ktime_get_tai_ns user_ringbuf_drain cgrp_storage_get cgrp_storage_delete
""".split()  # noqa: SIM905 (one name a line would be a page)

# bcc turns a dereference of a kernel pointer into bpf_probe_read_kernel() in function bodies and in arguments of
# functions, not inside a macro: with a macro ntohs, `ntohs(sk->__sk_common.skc_dport)` is refused by the verifier.
_KCONFIG = """\
#pragma once
#ifdef EXPORTER_TYPES
#include EXPORTER_TYPES
#else
#include "../vmlinux.h"
#endif
#define _UAPI__LINUX_BPF_H__ 1 /* mutes bcc's own copy of uapi/linux/bpf.h: vmlinux.h has these types */
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_ARCH_HAS_SYSCALL_WRAPPER 1
#define LINUX_VERSION_CODE {version}
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define PAGE_SHIFT {page_shift}
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define NULL ((void *)0)
#define __user
#define __always_inline inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define offsetof(type, member) __builtin_offsetof(type, member)
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_VSOCK 40
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100
static __always_inline u16 ntohs(u16 x) {{ return __builtin_bswap16(x); }}
static __always_inline u16 htons(u16 x) {{ return __builtin_bswap16(x); }}
static __always_inline u32 ntohl(u32 x) {{ return __builtin_bswap32(x); }}
static __always_inline u32 htonl(u32 x) {{ return __builtin_bswap32(x); }}
static __always_inline u16 be16_to_cpu(u16 x) {{ return __builtin_bswap16(x); }}
static __always_inline u16 cpu_to_be16(u16 x) {{ return __builtin_bswap16(x); }}
static __always_inline u32 be32_to_cpu(u32 x) {{ return __builtin_bswap32(x); }}
static __always_inline u32 cpu_to_be32(u32 x) {{ return __builtin_bswap32(x); }}
static __always_inline u64 be64_to_cpu(u64 x) {{ return __builtin_bswap64(x); }}
static __always_inline u64 cpu_to_be64(u64 x) {{ return __builtin_bswap64(x); }}
#define __exporter_or1(n) ((n) | ((n) >> 1))
#define __exporter_or2(n) (__exporter_or1(n) | (__exporter_or1(n) >> 2))
#define __exporter_or4(n) (__exporter_or2(n) | (__exporter_or2(n) >> 4))
#define __exporter_or8(n) (__exporter_or4(n) | (__exporter_or4(n) >> 8))
#define roundup_pow_of_two(n) ((__exporter_or8((unsigned)(n) - 1) | (__exporter_or8((unsigned)(n) - 1) >> 16)) + 1)
"""


def _numbers() -> list[str]:
    """Return macros for numbers that BTF of some kernels has no enumerator for; where it has one, the value is the
    same."""
    helpers = [f"#define BPF_FUNC_{name} {number}" for number, name in enumerate(_HELPERS, _FIRST_HELPER)]
    # asm-generic/errno.h and errno-base.h, which x86-64 and arm64 share: Python has the same list.
    errors = [f"#define {name} {number}" for number, name in sorted(errno.errorcode.items())]
    # A macro before 5.17; commit 3087c61ed2c4 made it an enumerator, for BTF's sake.
    return [*helpers, *errors, "#define TASK_COMM_LEN 16"]


# Digest of what a tree has beside the types: another version of this module makes other trees and artifacts.
REVISION = hashlib.sha256(
    "\n".join((_KCONFIG, _PADDING.pattern, str(needed_types.FORMAT), _SIZES, *_numbers())).encode()
).hexdigest()[:8]


class HeadersError(Exception):
    """There is no tree: the message has the cause and what would help."""


class UnwritableError(HeadersError):
    """The directory cannot be written to; another one may."""


def source_tree(target: Target, trees: Path) -> Path | None:
    """Return the directory for BCC_KERNEL_SOURCE, which is made in `trees` if it is not there.

    None where the target is this host without BTF and has installed kernel headers, which bcc finds itself.
    HeadersError where there is neither, or where another user can write to the tree.
    """
    if not target.btf_path.exists():
        _need_installed_headers(target)
        return None
    try:
        return _made(target, trees)
    except OSError as error:
        why = f"{error.strerror or error} (--cache.dir: a directory that this user can write to)"
        raise UnwritableError(f"make kernel headers in {trees}: {why}") from error


def _made(target: Target, trees: Path) -> Path:
    _private_directory(trees)
    release = re.sub(r"[^A-Za-z0-9.+_-]", "_", target.release)
    tree = trees / f"{release}-{target.arch}-{target.btf_sha256[:16]}-{REVISION}"
    if _is_whole(tree):
        with suppress(OSError):  # a cache of another host may be read-only
            os.utime(tree)
    else:
        with (trees / ".lock").open("w") as lock:  # loaders start together: one makes the tree, the others wait for it
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(tree):
                _remove_unused(trees)
                shutil.rmtree(tree, ignore_errors=True)
                _make(target, tree)
    _private_directory(tree)
    return tree


def _is_whole(tree: Path) -> bool:
    """Return True if the files have the sizes that were written: after a power cut they may be empty."""
    try:
        sizes = [line.split(" ", 1) for line in (tree / _SIZES).read_text().splitlines()]
        return bool(sizes) and all((tree / name).stat().st_size == int(size) for size, name in sizes)
    except (OSError, ValueError):
        return False


def add_included(tree: Path, text: str) -> None:
    """Make an empty file for every `#include <...>` of a program: vmlinux.h has what it would declare."""
    include = tree / "include"
    for name in _INCLUDE.findall(text):
        inside = os.path.normpath("/" + name).lstrip("/")
        if not inside.startswith("bcc/"):  # libbcc has these itself
            _empty(include / inside)


def _make(target: Target, tree: Path) -> None:
    """Make the tree under another name and rename it, so that a killed loader leaves no half of a tree."""
    building = Path(tempfile.mkdtemp(prefix=".new-", dir=tree.parent))
    try:
        include = building / "include"
        (include / "linux").mkdir(parents=True)
        with KernelBtf(target.btf_path) as btf:
            btf.dump_c(include / "vmlinux.h")
        _name_padding(include / "vmlinux.h")
        needed_types.write_index(building)
        kconfig = _KCONFIG.format(version=_version_code(target.release), page_shift=_page_shift(target))
        (include / "linux" / "kconfig.h").write_text(kconfig + "\n".join(_numbers()) + "\n")
        for name in _FORCED:
            _empty(include / name)
        written = ("include/vmlinux.h", "include/linux/kconfig.h", needed_types.INDEX)
        (building / _SIZES).write_text("".join(f"{(building / name).stat().st_size} {name}\n" for name in written))
        os.rename(building, tree)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise UnwritableError(f"make kernel headers from {target.btf_path}: {error.strerror or error}") from error


def _name_padding(header: Path) -> None:
    number = count()
    header.write_text(_PADDING.sub(lambda _: f"long exporter_padding_{next(number)};", header.read_text()))


def _empty(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o644)


def _version_code(release: str) -> int:
    """Return LINUX_VERSION_CODE of "6.1.0-56-amd64", with the last part limited to 255 as the kernel's Makefile
    does."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if not match:
        raise HeadersError(f"read kernel release {release!r}: not of the form 6.1.0")
    major, minor, patch = (int(part or 0) for part in match.groups())
    return (major << 16) + (minor << 8) + min(patch, 255)


def _page_shift(target: Target) -> int:
    if target.arch == os.uname().machine:
        return os.sysconf("SC_PAGESIZE").bit_length() - 1
    return 12  # BTF has no page size; arm64 kernels of distributions have 4 KiB, except for RHEL 8


def _private_directory(directory: Path) -> None:
    """Create the directory if it is absent. HeadersError if another user can write to it: its C text runs in the
    kernel."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if other_writers(os.stat(directory, follow_symlinks=False), (os.geteuid(),)):
        raise HeadersError(f"use {directory}: it must belong to uid {os.geteuid()} and be writable by nobody else")


def _remove_unused(trees: Path) -> None:
    """Remove trees that no program was compiled with for a month, and unfinished ones of killed loaders."""
    for tree in trees.glob("*-*"):
        try:
            if time.time() - tree.stat().st_mtime > (3600 if tree.name.startswith(".new-") else _UNUSED_SECONDS):
                shutil.rmtree(tree, ignore_errors=True)
        except FileNotFoundError:
            continue  # another loader removed it


def _need_installed_headers(target: Target) -> None:
    modules = Path("/lib/modules") / target.release
    kernel = modules / "source" if (modules / "source").is_dir() else modules / "build"
    if (target.release, target.arch) != (os.uname().release, os.uname().machine):
        raise HeadersError(f"read BTF {target.btf_path}: no such file")
    if not (kernel / "include/linux/kconfig.h").exists():
        raise HeadersError(
            f"find kernel types: there is no {target.btf_path} (CONFIG_DEBUG_INFO_BTF is off) and no header package "
            f"for {target.release} (Debian and Ubuntu: apt-get install linux-headers-{target.release})"
        )
