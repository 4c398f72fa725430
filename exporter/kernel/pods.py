"""Pods of Kubernetes: uid -> namespace and name, from the directories that kubelet makes for their logs.

/var/log/pods/NAMESPACE_NAME_UID (BuildPodLogsDirectory in kubelet; neither namespaces nor names have a "_"). This needs
no credentials of the cluster. Names outlive their pods.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from exporter.kernel.recent_names import RecentNames

LOGS = Path("var/log/pods")  # below the root
LISTING_INTERVAL = 1.0  # seconds between two listings, however many uids are unknown
MOST_NAMES = 8192  # of living and dead pods


class Pods:
    """Names from the entries of a directory that root opened: other users may not be able to open /var/log/pods.

    A directory that kubelet makes later is opened with the rights of the process at that time; its mode is 0755.
    """

    def __init__(
        self,
        path: Path | None,
        most: int = MOST_NAMES,
        clock: Callable[[], float] = time.monotonic,
        logs: int | None = None,
    ) -> None:
        """`path` of the directory, which need not exist; None for no pods. `logs`: a descriptor of the directory, which
        this object owns."""
        self._path = path
        self._logs = logs
        self._clock = clock
        self._next_listing = -float("inf")
        self._names = RecentNames[str](most)

    def close(self) -> None:
        if self._logs is not None:
            os.close(self._logs)
        self._path = self._logs = None

    def _open_logs(self) -> None:
        """Open the directory if it exists and is not open yet."""
        if self._logs is not None and os.fstat(self._logs).st_nlink == 0:  # removed
            os.close(self._logs)
            self._logs = None
        if self._logs is None and self._path is not None:
            with suppress(OSError):
                self._logs = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def name(self, uid: str) -> str | None:
        """Return NAMESPACE/NAME of the pod; None if unknown, or if it came after a listing less than an interval
        ago."""
        if uid not in self._names and self._clock() >= self._next_listing:
            self._next_listing = self._clock() + LISTING_INTERVAL
            self._open_logs()
            if self._logs is not None:
                self._list(self._logs)
        return self._names.get(uid)

    def _list(self, logs: int) -> None:
        try:
            entries = os.listdir(logs)
        except OSError:
            return
        for entry in entries:
            parts = entry.split("_")
            if len(parts) != 3:
                continue
            namespace, name, uid = parts
            self._names.add(uid, f"{namespace}/{name}")
