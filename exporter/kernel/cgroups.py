"""cgroup2: id -> path, also after the cgroup is gone.

The id that bpf_get_current_cgroup_id() gives is the inode number of the cgroup's directory (kernfs on 64-bit kernels:
commit 40430452fd5d, 5.5). There is no call without privileges from id to path, so a miss walks the tree.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

WALK_INTERVAL = 1.0  # seconds; at most one walk in so long, however many ids miss,
WALK_SHARE = 0.05  # or as many as take this share of the time: a small tree is looked at again at once
KEPT = 16384  # names kept, of living and of dead cgroups; the longest unused go first (about 3 MB when full)


def find_mount(proc: Path) -> Path | None:
    """Where cgroup2 is mounted, by mountinfo (proc(5)): /sys/fs/cgroup, or /sys/fs/cgroup/unified beside version 1.

    A mount of the whole tree is preferred to one of a part of it. None without any.
    """
    part: Path | None = None
    try:
        lines = (proc / "self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(" ")
        if "-" not in fields or fields[fields.index("-") + 1] != "cgroup2":
            continue
        point = Path(_unescape(fields[4]))
        if fields[3] == "/":
            return point
        part = part or point
    return part


def _unescape(text: str) -> str:
    """Octal escapes of space, tab, newline and backslash in mountinfo."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


class Cgroups:
    """Names of the cgroups below one directory. Any user can use it: cgroup directories are open to all."""

    def __init__(self, root: int | None, kept: int = KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        """`root` is a descriptor of the mount's directory, owned from now on; None = no cgroup2 here."""
        self._root = root
        self._kept = kept
        self._clock = clock
        self._next_walk = -float("inf")
        self._paths: OrderedDict[int, str] = OrderedDict()

    @classmethod
    def open(cls, proc: Path = Path("/proc")) -> Cgroups:
        mount = find_mount(proc)
        if mount is None:
            return cls(None)
        try:
            return cls(os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            return cls(None)

    def close(self) -> None:
        if self._root is not None:
            os.close(self._root)
            self._root = None

    def path(self, id: int) -> str | None:  # noqa: A002
        """Path below the mount, "/" for the root; None if unknown, or not yet known and the last walk is too fresh."""
        known = self._paths.get(id)
        if known is not None:
            self._paths.move_to_end(id)
            return known
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
            self._paths[number] = path
            self._paths.move_to_end(number)
            if len(self._paths) > self._kept:
                self._paths.popitem(last=False)
        if found is not None:
            self._paths[wanted] = found
            self._paths.move_to_end(wanted)
            if len(self._paths) > self._kept:
                self._paths.popitem(last=False)
        return found


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
