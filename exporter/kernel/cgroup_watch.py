"""Cgroups as they are made -> their names, also of those that are gone before anybody asks.

A walk finds what lives. What comes and goes between two scrapes is told by inotify: each directory of the hierarchy has
a watch, and a thread that otherwise sleeps looks up what was made in it. A cgroup has to live until the thread has
looked, a millisecond or so. Bounded by MOST: a watch is some 1 kB of kernel memory; what is made in the directories
beyond is left to the walks.
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
    """Calls `learn` with id and path of every cgroup below `root`, a descriptor, that there is or comes. OSError where
    this user may not have an inotify instance."""

    def __init__(self, root: int, learn: Learn, most: int = MOST) -> None:
        self._root = os.dup(root)
        self._learn = learn
        self._most = most
        self._paths: dict[int, str] = {}  # by number of the watch; "" is the root
        self._watches: dict[str, int] = {}  # and back
        try:
            self._inotify = inotify.init()
        except OSError:
            os.close(self._root)
            raise
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cgroups", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. That the root is opened is an event like others, and wakes it."""
        self._ended.set()
        with suppress(OSError):
            inotify.add_watch(self._inotify, f"/proc/self/fd/{self._root}", inotify.IN_OPEN | inotify.IN_ONLYDIR)
            os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root))
        self._thread.join()
        for descriptor in (self._inotify, self._root):
            os.close(descriptor)

    def _run(self) -> None:
        self._look("")
        while not self._ended.is_set():
            for watch, mask, name in inotify.read(self._inotify):
                if not mask & inotify.IN_ISDIR or watch not in self._paths:
                    continue
                if mask & inotify.IN_CREATE:
                    self._look(f"{self._paths[watch]}/{name}")
                elif mask & inotify.IN_DELETE:
                    self._forget(f"{self._paths[watch]}/{name}")

    def _look(self, path: str) -> None:
        """Learn a cgroup and what is in it. Its watch comes first, so that nothing is made unseen while we look."""
        below = [path]
        while below:
            path = below.pop()
            with suppress(OSError):  # gone already, or no more watches: then it is only learned
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
        """End the watch of a cgroup that is gone: its inode never has a link count of 0, so the kernel does not."""
        watch = self._watches.pop(path, None)
        if watch is not None:
            del self._paths[watch]
            with suppress(OSError):
                inotify.remove_watch(self._inotify, watch)
