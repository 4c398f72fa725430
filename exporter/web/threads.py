"""Threads that wait for connections on one epoll(7), each working on what it was woken for.

No thread finds what another one answers: handing a connection over would cost two changes of thread, a quarter of what
a scrape of a thousand series takes. A connection that waits for its client holds no thread, whatever it waits for; so a
slow client holds up nobody. There are at most so many of those: one more ends another one (`crowding`).
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from exporter import log
from exporter.web import eviction
from exporter.web.connection import Connection

_ONCE = select.EPOLLIN | select.EPOLLONESHOT  # and nobody else is woken for it until it is asked for again
_LOOKS = 4  # for connections whose time is over, in `timeout`
_LOOKS_APART = 0.05  # seconds, at the end, between two looks for clients that are owed an answer
_CROWDED = 0.01  # seconds until the next one is let in where too many have just come
_NO_DESCRIPTORS = 0.1  # seconds until accept(2) is tried again
FINISH = 4.0  # seconds in which clients that came before the end still get their answers


class Threads:
    """`connect` makes a connection of what was accepted. `most`: how many may wait. `timeout`: the shortest that one of
    them waits, in seconds."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        connect: Callable[[socket.socket, Any], Connection],
        *,
        threads: int,
        most: int,
        timeout: float,
    ) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._connect = connect
        self._most = most
        self._timeout = timeout
        self._waiting: dict[int, Connection] = {}  # by descriptor; a thread that has one has taken it out
        self._armed: set[int] = set()  # descriptors that the epoll knows
        self._lock = threading.Lock()  # a descriptor is not closed while somebody else puts it to use
        self._epoll = select.epoll()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._over = threading.Event()
        self._workers = [
            threading.Thread(target=self._work, name=f"http-{number}", daemon=True) for number in range(threads)
        ]

    def run(self) -> None:
        """Until `stop`."""
        self._epoll.register(self._end, select.EPOLLIN)
        for listener in self._listeners.values():
            listener.setblocking(False)  # another thread may have taken what this one was woken for
            self._epoll.register(listener, _ONCE)
        for worker in self._workers:
            worker.start()
        while not self._over.wait(self._timeout / _LOOKS):
            now = time.monotonic()
            self._drop(*(one for one in list(self._waiting.values()) if one.until < now))
        for worker in self._workers:
            worker.join()
        self._finish()
        self._drop(*list(self._waiting.values()))
        self._epoll.close()
        os.close(self._end)

    def stop(self) -> None:
        """Who has connected gets its answer, who is at rest is closed; does not wait for that. Nobody new is taken: who
        comes now waits in the listening socket, for whoever listens next."""
        self._over.set()
        os.eventfd_write(self._end, 1)  # stays: every thread sees it

    def _finish(self) -> None:
        """A client may be taken before its request comes, and cannot know that it would have to ask again."""
        self._epoll.unregister(self._end)
        until = time.monotonic() + FINISH
        owed = True
        while owed and (left := until - time.monotonic()) > 0:
            ready = self._epoll.poll(min(left, _LOOKS_APART), maxevents=1)
            for fd, _ in ready:
                if (waited := self._waiting.pop(fd, None)) is not None:  # no listener
                    self._go_on(waited)
            if not ready:
                self._drop(*(one for one in list(self._waiting.values()) if not one.is_owed()))
                owed = bool(self._waiting)

    def _work(self) -> None:
        while True:
            [(fd, _)] = self._epoll.poll(maxevents=1)
            try:
                if fd == self._end:
                    return
                if (listener := self._listeners.get(fd)) is not None:
                    self._take(listener)
                elif (waited := self._waiting.pop(fd, None)) is not None:
                    self._go_on(waited)
            except Exception as error:  # noqa: BLE001 - a thread that ended would be missing
                log.get().error("http server error", error=f"{type(error).__name__}: {error}")

    def _take(self, listener: socket.socket) -> None:
        """A new connection; the next one wakes the next thread."""
        accepted = None
        try:
            if len(self._waiting) >= self._most and eviction.nobody_can_go(list(self._waiting.values())):
                time.sleep(_CROWDED)  # one thread, now and then: the others answer
                return
            accepted = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as error:  # no descriptor is left, most likely
            log.get().warning("no connection can be taken", why=os.strerror(error.errno or 0))
            if not self._drop(*eviction.one_too_many(list(self._waiting.values()))):
                time.sleep(_NO_DESCRIPTORS)
        finally:
            self._epoll.modify(listener, _ONCE)
        if accepted is not None:
            self._armed.discard(accepted[0].fileno())  # who had the number is gone, and out of the epoll
            connection = None
            with suppress(OSError):  # a client that only looks whether the port is open has left before TLS begins
                connection = self._connect(*accepted)
            if connection is not None:
                self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        events = None
        try:
            events = connection.work()
        finally:
            if events is None:
                with self._lock:
                    connection.close()
            else:
                self._wait(connection, events)

    def _wait(self, connection: Connection, events: int) -> None:
        while len(self._waiting) >= self._most:  # the one that has to go may just be taken by another thread
            self._drop(*eviction.one_too_many(list(self._waiting.values())))
        with self._lock:
            self._waiting[connection.fd] = connection
            # From here on another thread may have it.
            if connection.fd in self._armed:
                self._epoll.modify(connection.fd, events | select.EPOLLONESHOT)
            else:
                self._armed.add(connection.fd)
                self._epoll.register(connection.fd, events | select.EPOLLONESHOT)
        if connection.wfile.page:
            self._drop(*eviction.holding_too_much(list(self._waiting.values())))

    def _drop(self, *connections: Connection) -> bool:
        """Close those that still wait. Whether there was one."""
        dropped = False
        for connection in connections:
            with self._lock:
                # A thread that is woken for it takes it without the lock, between any two of these steps too.
                if self._waiting.get(connection.fd) is connection:
                    taken = self._waiting.pop(connection.fd, None) is None
                    if not taken:
                        connection.close()
                        dropped = True
        return dropped
