"""Every program that somebody else's count exists for, by the names of tests/matrix/everything.py, and who has none."""

from __future__ import annotations

from collections.abc import Callable

from tests.kernel.bundled import Running
from tests.peer import bundled_checks, checks
from tests.peer.checks import Found, wrong

Check = Callable[[Running], Found]

CHECKS: dict[str, Check] = {f"peer/{name}": check for name, check in checks.CHECKS.items()} | {
    f"programs/{name}": check for name, check in bundled_checks.CHECKS.items()
}
NO_COUNT = {
    "peer/cephfs_dist": "needs a Ceph cluster",
    "peer/llcstat": "needs the counters of a real CPU",
}
TRIES = 5  # others on this host work too, and an emulated one is slow; a count that they disturbed is repeated


def counted(name: str, running: Running) -> Found:
    """What its check found: the first time that nothing was wrong, or the last."""
    found: Found = {}
    for _ in range(TRIES):
        found = CHECKS[name](running)
        if not wrong(found):
            break
    return found
