"""Pods of Kubernetes: uid -> namespace and name, by the directories that kubelet makes for their logs.

/var/log/pods/NAMESPACE_NAME_UID (BuildPodLogsDirectory in kubelet; neither namespaces nor names have a "_" in them). No
credentials of the cluster are needed. Names outlive their pods.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

LOGS = Path("var/log/pods")  # below the root
WALK_SECONDS = 1.0  # at most one listing in so long, however many uids miss
KEPT = 8192  # names kept, of living and of dead pods; the longest unused go first


class Pods:
    """Names by the directories below one descriptor, opened while root: /var/log/pods may be closed to others."""

    def __init__(self, logs: int | None, kept: int = KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        """`logs` is a descriptor of the directory, owned from now on; None = no pods here."""
        self._logs = logs
        self._kept = kept
        self._clock = clock
        self._next_listing = -float("inf")
        self._names: OrderedDict[str, str] = OrderedDict()

    @classmethod
    def open(cls, root: Path = Path("/")) -> Pods:
        try:
            return cls(os.open(root / LOGS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            return cls(None)

    def close(self) -> None:
        if self._logs is not None:
            os.close(self._logs)
            self._logs = None

    def name(self, uid: str) -> str | None:
        """NAMESPACE/NAME of the pod; None if unknown, or not yet known and the last listing is too fresh."""
        if uid not in self._names and self._logs is not None and self._clock() >= self._next_listing:
            self._next_listing = self._clock() + WALK_SECONDS
            self._list(self._logs)
        if uid not in self._names:
            return None
        self._names.move_to_end(uid)
        return self._names[uid]

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
            self._names[uid] = f"{namespace}/{name}"
            if len(self._names) > self._kept:
                self._names.popitem(last=False)
