"""Which connections have to go where there are too many of them, or where they hold too much.

Of the client address that has the most of them, so that a crowd from one host costs that host its connections and not a
scraper elsewhere. Of those the one that has shown least that it means to ask, and has waited longest: who means it
sends at once. Everybody has a moment for that, whatever the crowd behind.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from exporter.web.connection import Connection, State

GRACE = 0.25  # seconds that a client has to show what it wants before it has to go for another one
UNSENT = 64 << 20  # bytes of pages that nobody is sent any more but clients who do not take them


def one_too_many(waiting: Sequence[Connection]) -> list[Connection]:
    """The one that has to go; those that are being sent an answer stay as long as there is another one."""
    if not waiting:
        return []
    of = Counter(one.remote_addr for one in waiting)
    most = max(of.values())
    return [min((one for one in waiting if of[one.remote_addr] == most), key=_patience)]


def _patience(connection: Connection) -> tuple[bool, int, float]:
    return connection.state is State.ANSWER, connection.progress, connection.since


def nobody_can_go(waiting: Sequence[Connection]) -> bool:
    """Whether the one that would have to go has only just come: then the next client waits, in the listening socket."""
    return any(time.monotonic() - one.since < GRACE for one in one_too_many(waiting))


def holding_too_much(waiting: Sequence[Connection]) -> list[Connection]:
    """The slowest of those that keep pages in memory: a page that several are sent counts once."""
    slow = sorted((one for one in waiting if one.wfile.page), key=lambda one: one.since)
    last = {id(one.wfile.page): one for one in slow}  # who keeps each page for longest
    sizes = {page: sum(map(len, one.wfile.page)) for page, one in last.items()}
    gone: list[Connection] = []
    total = sum(sizes.values())
    while total > UNSENT and len(sizes) > 1:
        page = id(slow[0].wfile.page)
        gone += [one for one in slow if id(one.wfile.page) == page]
        slow = [one for one in slow if id(one.wfile.page) != page]
        total -= sizes.pop(page)
    return gone
