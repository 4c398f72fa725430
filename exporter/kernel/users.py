"""/etc/passwd: user id -> name. No NSS, so that nothing is asked over a network while a scrape waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 1.0  # at most one look in so long whether the file changed
LARGEST_FILE = 4 << 20  # bytes read; more is no passwd file


class Users:
    """The file as it was last seen; read again when it changes (adduser(8) puts a new one in its place)."""

    def __init__(self, passwd: Path = Path("/etc/passwd"), clock: Callable[[], float] = time.monotonic) -> None:
        self._passwd = passwd
        self._clock = clock
        self._next_look = -float("inf")
        self._seen: tuple[int, int, int] | None = None
        self._names: dict[int, str] = {}

    def name(self, uid: int) -> str | None:
        """The first name with this user id; None if there is none (users of LDAP and of containers are not there)."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look()
        return self._names.get(uid)

    def _look(self) -> None:
        """What cannot be read leaves the names as they were."""
        try:
            with open(self._passwd, "rb") as file:
                status = os.fstat(file.fileno())
                seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                if seen != self._seen:
                    self._names = _parse(file.read(LARGEST_FILE))
                    self._seen = seen
        except OSError:
            return


def _parse(text: bytes) -> dict[int, str]:
    names: dict[int, str] = {}
    for line in text.splitlines():
        fields = line.split(b":")  # passwd(5): name, password, user id, ...
        if len(fields) >= 3 and fields[2].isdigit():
            names.setdefault(int(fields[2]), fields[0].decode("utf-8", "replace"))
    return names
