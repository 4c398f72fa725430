"""User, group and capabilities of this process: reading and dropping them (capabilities(7), prctl(2))."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# include/uapi/linux/capability.h
CAP_SETGID = 6
CAP_SETPCAP = 8
CAP_BPF = 39  # 5.8
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct"""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct: 32 of the 64 bits; a set has two of them."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@dataclass(frozen=True, slots=True)
class Credentials:
    """Fields of /proc/PID/status. uids, gids: real, effective, saved, file system."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    inheritable: frozenset[int]
    permitted: frozenset[int]
    effective: frozenset[int]
    bounding: frozenset[int]
    ambient: frozenset[int]
    no_new_privs: bool
    threads: int


def read(proc: Path = Path("/proc"), pid: int | str = "self") -> Credentials:
    """Return the credentials of a process. FileNotFoundError if it does not exist, ValueError if a line is missing."""
    found: dict[str, str] = {}
    for line in (proc / str(pid) / "status").read_text("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        found[key] = value.strip()
    try:
        return Credentials(
            uids=_numbers(found["Uid"]),
            gids=_numbers(found["Gid"]),
            groups=_numbers(found["Groups"]),
            inheritable=_bits(found["CapInh"]),
            permitted=_bits(found["CapPrm"]),
            effective=_bits(found["CapEff"]),
            bounding=_bits(found["CapBnd"]),
            ambient=_bits(found["CapAmb"]),
            no_new_privs=found["NoNewPrivs"] == "1",
            threads=int(found["Threads"]),
        )
    except KeyError as missing:
        raise ValueError(f"{proc}/{pid}/status has no line {missing}") from None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split())


def _bits(mask: str) -> frozenset[int]:
    number = int(mask, 16)
    return frozenset(bit for bit in range(number.bit_length()) if number >> bit & 1)


def drop_to(uid: int, gid: int, keep_caps: Iterable[int] = frozenset(), proc: Path = Path("/proc")) -> None:
    """Change to this user and group with exactly these capabilities, irreversibly, and verify that in /proc.

    Clears supplementary groups, sets no_new_privs and makes the process not dumpable, so that other processes of this
    user cannot take its descriptors. A service manager may have done part of it. Capabilities belong to threads: call
    this before a second thread starts. setuid(2) clears the parent-death signal: call `die_with_parent` afterwards.
    OSError names the step that the kernel refused, or the credential that differs.
    """
    keep = frozenset(keep_caps)
    had = read(proc)
    if had.threads > 1:
        hint = "give up rights before threads start; numpy: OPENBLAS_NUM_THREADS=1"
        raise OSError(errno.EBUSY, f"drop to uid {uid}: {had.threads} threads run already ({hint})")
    if not _not_as_asked(had, uid, gid, keep) and not had.bounding - keep:
        _prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 0)  # a service manager did the rest, and may forbid the calls
        return
    missing = keep - had.permitted
    if missing:
        raise OSError(errno.EPERM, f"drop to uid {uid}: capabilities to keep are not held: {sorted(missing)}")
    try:
        if CAP_SETPCAP in had.effective:
            for capability in had.bounding - keep:
                _prctl("PR_CAPBSET_DROP", PR_CAPBSET_DROP, capability)
        if CAP_SETGID in had.effective or not set(had.groups) <= {gid}:
            os.setgroups([])
        os.setresgid(gid, gid, gid)
        _prctl("PR_SET_KEEPCAPS", PR_SET_KEEPCAPS, 1)  # else the change from uid 0 clears the permitted set
        os.setresuid(uid, uid, uid)
        _prctl("PR_CAP_AMBIENT", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        set_capabilities(keep)
        _prctl("PR_SET_KEEPCAPS", PR_SET_KEEPCAPS, 0)
        no_new_privileges()
        _prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 0)  # setuid does so unless fs.suid_dumpable says otherwise
    except OSError as error:
        raise OSError(error.errno, f"drop to uid {uid} gid {gid}: {error.strerror}") from None
    wrong = _not_as_asked(read(proc), uid, gid, keep)
    if wrong:
        raise OSError(errno.EPERM, f"drop to uid {uid} gid {gid}: afterwards {wrong}")


def _not_as_asked(now: Credentials, uid: int, gid: int, keep: frozenset[int]) -> str:
    """Return which credentials differ from those that drop_to promises, "" if none."""
    asked: tuple[tuple[str, object, object], ...] = (
        ("uids are", now.uids, (uid,) * 4),
        ("gids are", now.gids, (gid,) * 4),
        ("groups are", tuple(group for group in now.groups if group != gid), ()),  # systemd's User= adds it again
        ("permitted is", now.permitted, keep),
        ("effective is", now.effective, keep),
        ("inheritable is", now.inheritable, frozenset()),
        ("ambient is", now.ambient, frozenset()),
        ("no_new_privs is", now.no_new_privs, True),
    )
    return ", ".join(
        f"{what} {sorted(have) if isinstance(have, frozenset) else have}" for what, have, want in asked if have != want
    )


def set_capabilities(keep: Iterable[int]) -> None:
    """Set the permitted and effective sets of the calling thread, and clear the inheritable set."""
    mask = sum(1 << capability for capability in frozenset(keep))
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)(*(_Data(word, word, 0) for word in (mask & 0xFFFFFFFF, mask >> 32)))
    if _libc.capset(ctypes.byref(header), data):
        _refused("capset")


def no_new_privileges() -> None:
    """Set no_new_privs, irreversibly: execve(2) grants no more privileges than the process has."""
    _prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal: int, parent: int) -> None:
    """Have the kernel send `signal` when the thread that forked this process ends. ProcessLookupError if it has ended.

    `parent` is os.getpid() before the fork: without it a parent that ended in between would not be noticed.
    """
    _prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, f"parent process {parent} has ended")


def _prctl(name: str, option: int, *arguments: int) -> None:
    given = [ctypes.c_ulong(argument) for argument in arguments]
    given += [ctypes.c_ulong(0)] * (4 - len(given))  # newer options require 0 in unused arguments
    if _libc.prctl(ctypes.c_int(option), *given):
        _refused(name)


def _refused(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
