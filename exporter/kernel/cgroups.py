"""Cgroups: id -> path, also after the cgroup is removed; of version 2, and of each hierarchy of version 1.

The id of a cgroup is the inode number of its directory (kernfs on 64-bit kernels: commit 40430452fd5d, 5.5), in its own
hierarchy. No system call without privileges turns an id into a path, so an unknown id walks the tree; cgroups that live
only between two scrapes are learned from inotify (cgroup_watch.py).

bpf_get_current_cgroup_id() is the id in the default hierarchy, which is version 2 (task_dfl_cgroup() in
include/linux/cgroup.h). That hierarchy exists even where it is not mounted; then every task is in its root and the
helper returns 1 for all of them. An id in a hierarchy of version 1 is read through its controller:
task->cgroups->subsys[pids_cgrp_id]->cgroup->kn->id.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from exporter.kernel.cgroup_watch import CgroupWatch
from exporter.kernel.recent_names import RecentNames

WALK_INTERVAL = 1.0  # seconds between two walks, however many ids are unknown,
WALK_SHARE = 0.05  # or less while walks take less than this share of the time: a small tree is walked again at once
MOST_NAMES = 16384  # of living and dead cgroups (about 3 MB when full)

# Options of a cgroup mount that are not controllers (cgroup1_show_options() in kernel/cgroup/cgroup-v1.c, vfs).
_NO_CONTROLLER = frozenset(
    {"rw", "ro", "noprefix", "xattr", "cpuset_v2_mode", "favordynmods", "seclabel", "clone_children"}
)


def find_mount(proc: Path) -> Path | None:
    """Return where cgroup2 is mounted (proc_pid_mountinfo(5)): /sys/fs/cgroup, or /sys/fs/cgroup/unified beside version
    1.

    A mount of the whole tree is preferred to one of a part of it. None if it is not mounted.
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
    """Return controller ("pids", "memory", "name=systemd") -> mount point of its hierarchy of version 1. Controllers
    that are not mounted there belong to version 2."""
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
    """Yield (file system, root, mount point, options) of every mount that this process sees."""
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
    """Decode the octal escapes of mountinfo: space, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


class Cgroups:
    """Names of the cgroups of one hierarchy. Needs no rights: every user can read cgroup directories."""

    def __init__(
        self,
        root: int | None,
        most: int = MOST_NAMES,
        clock: Callable[[], float] = time.monotonic,
        mount: Path | None = None,
    ) -> None:
        """`root`: a descriptor of the mounted directory, which this object owns; None for no such hierarchy, or for one
        that is opened at `mount` with the first lookup."""
        self._root = root
        self._mount = mount
        self._clock = clock
        self._next_walk = -float("inf")
        self._paths = RecentNames[int](most)
        self._lock = threading.Lock()  # of _paths
        self._watch: CgroupWatch | None = None

    def watch(self) -> None:
        """Start a thread that learns new cgroups from inotify, unless it runs already; without the right to inotify
        only walks find them."""
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
        """Return the path below the mount, "/" for the root; None if unknown, or if the next walk is not due yet."""
        with self._lock:
            known = self._paths.get(id)
        if known is not None:
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
        """Learn every living cgroup and return the path of `wanted`, also in a tree larger than the cache."""
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
            self._paths.add(number, path)


def _directories(root: int) -> Iterator[tuple[int, str]]:
    """Yield (inode, path) of "/" and every directory below `root`; skip those that are removed meanwhile."""
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
