"""Pods of Kubernetes: uid -> namespace and name, by the directories that kubelet makes for their logs.

/var/log/pods/NAMESPACE_NAME_UID (BuildPodLogsDirectory in kubelet; neither namespaces nor names have a "_" in them). No
credentials of the cluster are needed. Names outlive their pods.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOGS = Path("var/log/pods")  # below the root
WALK_SECONDS = 1.0  # at most one listing in so long, however many uids miss
KEPT = 8192  # names kept, of living and of dead pods; the longest unused go first


class Pods:
    """Names by the directories below one that is opened while root: /var/log/pods may be closed to others.

    One that kubelet makes later, or anew, is opened with the rights of who asks; kubelet makes it for all (0755).
    """

    def __init__(
        self,
        path: Path | None,
        kept: int = KEPT,
        clock: Callable[[], float] = time.monotonic,
        logs: int | None = None,
    ) -> None:
        """`path` is that of the directory, whether or not there is one; None = there are no pods here. `logs` is a
        descriptor of it, owned from now on."""
        self._path = path
        self._logs = logs
        self._kept = kept
        self._clock = clock
        self._next_listing = -float("inf")
        self._names: OrderedDict[str, str] = OrderedDict()

    @classmethod
    def open(cls, root: Path = Path("/")) -> Pods:
        pods = cls(root / LOGS)
        pods._look()
        return pods

    def close(self) -> None:
        if self._logs is not None:
            os.close(self._logs)
        self._path = self._logs = None

    def _look(self) -> None:
        """Open the directory if there is one now that is not open yet."""
        if self._logs is not None and os.fstat(self._logs).st_nlink == 0:  # removed
            os.close(self._logs)
            self._logs = None
        if self._logs is None and self._path is not None:
            with suppress(OSError):
                self._logs = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def name(self, uid: str) -> str | None:
        """NAMESPACE/NAME of the pod; None if unknown, or not yet known and the last listing is too fresh."""
        if uid not in self._names and self._clock() >= self._next_listing:
            self._next_listing = self._clock() + WALK_SECONDS
            self._look()
            if self._logs is not None:
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
