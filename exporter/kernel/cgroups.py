"""Cgroups: id -> path, also after the cgroup is gone; of version 2, and of each hierarchy of version 1.

The id of a cgroup is the inode number of its directory (kernfs on 64-bit kernels: commit 40430452fd5d, 5.5), in its own
hierarchy. There is no call without privileges from id to path, so a miss walks the tree; what comes
and goes between two scrapes is learned as it is made (cgroup_watch.py).

bpf_get_current_cgroup_id() is the id in the default hierarchy, which is version 2 (task_dfl_cgroup() in
include/linux/cgroup.h). That hierarchy is there whether or not anybody has mounted it, and where nobody has, every task
is in its root: the helper then says 1 for all of them. What version 1 has is found by its own controllers:
task->cgroups->subsys[pids_cgrp_id]->cgroup->kn->id.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from exporter.kernel.cgroup_watch import CgroupWatch

WALK_INTERVAL = 1.0  # seconds; at most one walk in so long, however many ids miss,
WALK_SHARE = 0.05  # or as many as take this share of the time: a small tree is looked at again at once
KEPT = 16384  # names kept, of living and of dead cgroups; the longest unused go first (about 3 MB when full)

# Options of a cgroup mount that are no controller (cgroup1_show_options() in kernel/cgroup/cgroup-v1.c, vfs).
_NO_CONTROLLER = frozenset(
    {"rw", "ro", "noprefix", "xattr", "cpuset_v2_mode", "favordynmods", "seclabel", "clone_children"}
)


def find_mount(proc: Path) -> Path | None:
    """Where cgroup2 is mounted, by mountinfo (proc(5)): /sys/fs/cgroup, or /sys/fs/cgroup/unified beside version 1.

    A mount of the whole tree is preferred to one of a part of it. None without any.
    """
    part: Path | None = None
    for kind, root, point, _ in _mounts(proc):
        if kind != "cgroup2":
            continue
        if root == "/":
            return point
        part = part or point
    return part


def find_controllers(proc: Path) -> dict[str, Path]:
    """Controller ("pids", "memory", and "name=systemd") -> where its hierarchy of version 1 is mounted. A controller
    that nobody has mounted there belongs to version 2."""
    found: dict[str, Path] = {}
    whole: set[str] = set()
    for kind, root, point, options in _mounts(proc):
        for option in options if kind == "cgroup" else ():
            if option in _NO_CONTROLLER or option.startswith("release_agent=") or option in whole:
                continue
            if root == "/":
                whole.add(option)
                found[option] = point
            found.setdefault(option, point)
    return found


def _mounts(proc: Path) -> Iterator[tuple[str, str, Path, list[str]]]:
    """(file system, which part of it, where, its options) of every mount that this process sees."""
    try:
        lines = (proc / "self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(" ")
        if "-" in fields:
            behind = fields[fields.index("-") + 1 :]
            yield behind[0], fields[3], Path(_unescape(fields[4])), behind[2].split(",") if len(behind) > 2 else []


def _unescape(text: str) -> str:
    """Octal escapes of space, tab, newline and backslash in mountinfo."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


class Cgroups:
    """Names of the cgroups of one hierarchy. Any user can use it: cgroup directories are open to all."""

    def __init__(
        self,
        root: int | None,
        kept: int = KEPT,
        clock: Callable[[], float] = time.monotonic,
        mount: Path | None = None,
    ) -> None:
        """`root` is a descriptor of the mount's directory, owned from now on. None = no such hierarchy here, or one
        that is opened at `mount` when the first name is asked for."""
        self._root = root
        self._mount = mount
        self._kept = kept
        self._clock = clock
        self._next_walk = -float("inf")
        self._paths: OrderedDict[int, str] = OrderedDict()
        self._lock = threading.Lock()  # of _paths
        self._watch: CgroupWatch | None = None

    @classmethod
    def open(cls, mount: Path | None) -> Cgroups:
        """Of the hierarchy that is mounted there."""
        opened = cls(None, mount=mount)
        opened._open()
        return opened

    def watch(self) -> None:
        """From now on learn cgroups as they are made, in a thread; without the right to that, walks have to do. Only
        the first call does something."""
        if self._mount is not None:
            self._open()
        if self._watch is None and self._root is not None:
            with suppress(OSError):
                self._watch = CgroupWatch(self._root, self._remember)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._root is not None:
            os.close(self._root)
        self._root = self._mount = None

    def _open(self) -> None:
        mount, self._mount = self._mount, None
        with suppress(OSError):
            self._root = None if mount is None else os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def path(self, id: int) -> str | None:  # noqa: A002
        """Path below the mount, "/" for the root; None if unknown, or not yet known and the last walk is too fresh."""
        with self._lock:
            known = self._paths.get(id)
            if known is not None:
                self._paths.move_to_end(id)
                return known
        if self._mount is not None:
            self._open()
        start = self._clock()
        if self._root is None or start < self._next_walk:
            return None
        found = self._walk(self._root, id)
        self._next_walk = start + min(WALK_INTERVAL, (self._clock() - start) / WALK_SHARE)
        return found

    def _walk(self, root: int, wanted: int) -> str | None:
        """Learns every living cgroup. What was asked for is found even if the tree is larger than what is kept."""
        found: str | None = None
        for number, path in _directories(root):
            if number == wanted:
                found = path
            self._remember(number, path)
        if found is not None:
            self._remember(wanted, found)
        return found

    def _remember(self, number: int, path: str) -> None:
        with self._lock:
            self._paths[number] = path
            self._paths.move_to_end(number)
            if len(self._paths) > self._kept:
                self._paths.popitem(last=False)


def _directories(root: int) -> Iterator[tuple[int, str]]:
    """(inode, path) of every directory below `root`, and "/" itself; one that vanishes meanwhile is left out."""
    yield os.fstat(root).st_ino, "/"
    below = ["."]
    while below:
        directory = below.pop()
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        except OSError:
            continue
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        path = f"{directory}/{entry.name}"
                        yield entry.inode(), path[1:]
                        below.append(path)
        except OSError:
            continue
        finally:
            os.close(descriptor)
