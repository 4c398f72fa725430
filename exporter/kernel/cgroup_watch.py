"""New cgroups -> their ids and paths by inotify(7), also of cgroups that are removed before the next scrape.

A walk finds only living cgroups. Here each directory of the hierarchy has a watch, and a thread that otherwise sleeps
looks up the directories that are made in it; a cgroup must live about a millisecond for that. At most MOST directories
are watched, because a watch takes 1 kB of kernel memory; walks find the others.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from exporter.kernel import inotify

MOST = 4096  # directories watched; fs.inotify.max_user_watches is 8192 at least

Learn = Callable[[int, str], None]


class CgroupWatch:
    """Calls `learn` with id and path of every existing and every new cgroup below `root`, a descriptor. OSError if this
    user has too many inotify instances."""

    def __init__(self, root: int, learn: Learn, most: int = MOST) -> None:
        self._root = os.dup(root)
        self._learn = learn
        self._most = most
        self._paths: dict[int, str] = {}  # by watch; "" is the root
        self._watches: dict[str, int] = {}  # by path
        try:
            self._inotify = inotify.init()
        except OSError:
            os.close(self._root)
            raise
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cgroups", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Opening the root is an event that wakes it."""
        self._ended.set()
        with suppress(OSError):
            inotify.add_watch(self._inotify, f"/proc/self/fd/{self._root}", inotify.IN_OPEN | inotify.IN_ONLYDIR)
            os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root))
        self._thread.join()
        for descriptor in (self._inotify, self._root):
            os.close(descriptor)

    def _run(self) -> None:
        self._learn_tree("")
        while not self._ended.is_set():
            for watch, mask, name in inotify.read(self._inotify):
                if not mask & inotify.IN_ISDIR or watch not in self._paths:
                    continue
                if mask & inotify.IN_CREATE:
                    self._learn_tree(f"{self._paths[watch]}/{name}")
                elif mask & inotify.IN_DELETE:
                    self._forget(f"{self._paths[watch]}/{name}")

    def _learn_tree(self, path: str) -> None:
        """Learn a cgroup and all below it. Its watch is added before it is listed, so that no new directory is
        missed."""
        below = [path]
        while below:
            path = below.pop()
            with suppress(OSError):  # removed already, or out of watches: then it is only learned
                self._learn(os.stat(f".{path}", dir_fd=self._root).st_ino, path or "/")
                if len(self._paths) >= self._most:
                    continue
                self._add(path)
                directory = os.open(f".{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
                try:
                    with os.scandir(directory) as entries:
                        below += [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
                finally:
                    os.close(directory)

    def _add(self, path: str) -> None:
        mask = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_ONLYDIR
        watch = inotify.add_watch(self._inotify, f"/proc/self/fd/{self._root}{path}", mask)
        self._paths[watch] = path
        self._watches[path] = watch

    def _forget(self, path: str) -> None:
        """Remove the watch of a removed cgroup: its inode never has a link count of 0, so the kernel does not."""
        watch = self._watches.pop(path, None)
        if watch is not None:
            del self._paths[watch]
            with suppress(OSError):
                inotify.remove_watch(self._inotify, watch)
