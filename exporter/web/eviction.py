"""The choice of connections to close where there are too many of them, or where they keep too much memory.

The connection to close belongs to the client address with the most connections: many clients on one host cost that host
its connections, and not a scraper elsewhere. Among the connections of that address, the one that has sent the least of
its request is closed; of several, the one that has waited longest. Every client first has a moment to send its request.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from exporter.web.connection import Connection, Phase

GRACE = 0.25  # seconds that a client has to ask before it may be evicted for another one
UNSENT = 64 << 20  # bytes of pages that only clients who do not take them keep in memory


def one_too_many(waiting: Sequence[Connection]) -> list[Connection]:
    """Return the connection to close, in a list, empty if none waits. One that takes its answer is the last choice."""
    if not waiting:
        return []
    count = Counter(one.address for one in waiting)
    most = max(count.values())
    return [min((one for one in waiting if count[one.address] == most), key=_patience)]


def _patience(connection: Connection) -> tuple[bool, int, float]:
    return connection.phase is Phase.ANSWER, connection.progress, connection.since


def nobody_can_go(waiting: Sequence[Connection]) -> bool:
    """Return True if the connection to close has only just come: then the next client waits in the listening socket."""
    return any(time.monotonic() - one.since < GRACE for one in one_too_many(waiting))


def holding_too_much(waiting: Sequence[Connection]) -> list[Connection]:
    """Return the slowest of the connections that keep pages in memory; a page that several are sent counts once."""
    slow = sorted((one for one in waiting if one.page), key=lambda one: one.since)
    last = {id(one.page): one for one in slow}  # the last to take each page
    sizes = {page: sum(map(len, one.page)) for page, one in last.items()}
    gone: list[Connection] = []
    total = sum(sizes.values())
    while total > UNSENT and len(sizes) > 1:
        page = id(slow[0].page)
        gone += [one for one in slow if id(one.page) == page]
        slow = [one for one in slow if id(one.page) != page]
        total -= sizes.pop(page)
    return gone
