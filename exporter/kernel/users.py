"""/etc/passwd (passwd(5)): user id -> name. Not NSS, which can wait for a network during a scrape."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

CHECK_SECONDS = 1.0  # between two checks whether the file changed
LARGEST_FILE = 4 << 20  # bytes that are read


class Users:
    """The users of a passwd file, which is read again when it changes (adduser(8) replaces it)."""

    def __init__(self, passwd: Path = Path("/etc/passwd"), clock: Callable[[], float] = time.monotonic) -> None:
        self._passwd = passwd
        self._clock = clock
        self._next_check = -float("inf")
        self._seen: tuple[int, int, int] | None = None
        self._names: dict[int, str] = {}

    def name(self, uid: int) -> str | None:
        """Return the first name with this user id; None if there is none, as for users of LDAP and of containers."""
        now = self._clock()
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self._reload()
        return self._names.get(uid)

    def _reload(self) -> None:
        """Read the file if it has changed; the names stay where it cannot be read."""
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
