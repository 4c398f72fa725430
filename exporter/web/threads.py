"""Threads that wait for connections on one epoll(7). Each thread works on the connection that it was woken for.

No thread accepts connections or reads requests for another one: handing a connection over would cost two context
switches, a quarter of a scrape of a thousand series. A connection that waits for its client occupies no thread, so slow
clients delay nobody. The number of waiting connections is bounded: where there are too many, one is closed
(eviction.py).
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

_ONCE = select.EPOLLIN | select.EPOLLONESHOT  # no other thread is woken until the descriptor is armed again
_CHECKS = 4  # for connections whose time is over, in `timeout`
_CHECK_INTERVAL = 0.05  # seconds, at the end, between two checks for clients that are owed an answer
_CROWDED = 0.01  # seconds until the next accept(2) where too many clients have just connected
_NO_DESCRIPTORS = 0.1  # seconds until accept(2) is tried again
FINISH = 4.0  # seconds in which clients that connected before the end still get their answers


class Threads:
    """connect  makes a connection of what accept(2) returns
    most     connections that may wait
    timeout  seconds, the shortest that a connection waits
    """

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
        self._waiting: dict[int, Connection] = {}  # by descriptor; a thread removes the one that it works on
        self._armed: set[int] = set()  # descriptors that are in the epoll
        self._lock = threading.Lock()  # no thread closes a descriptor that another one uses
        self._epoll = select.epoll()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._over = threading.Event()
        self._workers = [
            threading.Thread(target=self._work, name=f"http-{number}", daemon=True) for number in range(threads)
        ]

    def run(self) -> None:
        """Serve until `stop`."""
        self._epoll.register(self._end, select.EPOLLIN)
        for listener in self._listeners.values():
            listener.setblocking(False)  # another thread may accept what this one was woken for
            self._epoll.register(listener, _ONCE)
        for worker in self._workers:
            worker.start()
        while not self._over.wait(self._timeout / _CHECKS):
            now = time.monotonic()
            self._drop(*(one for one in list(self._waiting.values()) if one.until < now))
        for worker in self._workers:
            worker.join()
        self._finish()
        self._drop(*list(self._waiting.values()))
        self._epoll.close()
        os.close(self._end)

    def stop(self) -> None:
        """Ask the threads to end. Clients that have connected get their answers, and connections at rest are closed.
        New clients wait in the listening socket, for the next process that accepts there."""
        self._over.set()
        os.eventfd_write(self._end, 1)  # nobody reads it, so every thread sees it

    def _finish(self) -> None:
        """Answer clients that are connected: they cannot know that they would have to ask again."""
        self._epoll.unregister(self._end)
        until = time.monotonic() + FINISH
        owed = True
        while owed and (left := until - time.monotonic()) > 0:
            ready = self._epoll.poll(min(left, _CHECK_INTERVAL), maxevents=1)
            for fd, _ in ready:
                if (waited := self._waiting.pop(fd, None)) is not None:  # not a listener
                    self._work_on(waited)
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
                    self._accept(listener)
                elif (waited := self._waiting.pop(fd, None)) is not None:
                    self._work_on(waited)
            except Exception as error:  # noqa: BLE001 - a thread that ended would be missing
                log.get().error("http server error", error=f"{type(error).__name__}: {error}")

    def _accept(self, listener: socket.socket) -> None:
        """Accept one connection; the next one wakes the next thread."""
        accepted = None
        try:
            if len(self._waiting) >= self._most and eviction.nobody_can_go(list(self._waiting.values())):
                time.sleep(_CROWDED)  # this thread alone: the others answer
                return
            accepted = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as error:  # most likely no descriptor is left
            log.get().warning("cannot accept a connection", error=os.strerror(error.errno or 0))
            if not self._drop(*eviction.one_too_many(list(self._waiting.values()))):
                time.sleep(_NO_DESCRIPTORS)
        finally:
            self._epoll.modify(listener, _ONCE)
        if accepted is not None:
            self._armed.discard(accepted[0].fileno())  # close(2) took its predecessor out of the epoll
            connection = None
            with suppress(OSError):  # a client that only probes the port has left before TLS begins
                connection = self._connect(*accepted)
            if connection is not None:
                self._work_on(connection)

    def _work_on(self, connection: Connection) -> None:
        events = None
        try:
            events = connection.work()
        except Exception as error:  # noqa: BLE001 - one connection ends, and no thread
            log.get().error("http server error", error=f"{type(error).__name__}: {error}")
        finally:
            if events is None:
                with self._lock:
                    connection.close()
            else:
                self._wait(connection, events)

    def _wait(self, connection: Connection, events: int) -> None:
        while len(self._waiting) >= self._most:  # another thread may just have woken for the one to close
            self._drop(*eviction.one_too_many(list(self._waiting.values())))
        with self._lock:
            self._waiting[connection.fd] = connection
            # From here on another thread may work on it.
            if connection.fd in self._armed:
                self._epoll.modify(connection.fd, events | select.EPOLLONESHOT)
            else:
                self._armed.add(connection.fd)
                self._epoll.register(connection.fd, events | select.EPOLLONESHOT)
        if connection.page:
            self._drop(*eviction.holding_too_much(list(self._waiting.values())))

    def _drop(self, *connections: Connection) -> bool:
        """Close those that still wait. Return True if there was one."""
        dropped = False
        for connection in connections:
            with self._lock:
                # A thread that is woken for it removes it without the lock, between any two of these steps.
                if self._waiting.get(connection.fd) is connection:
                    taken = self._waiting.pop(connection.fd, None) is None
                    if not taken:
                        connection.close()
                        dropped = True
        return dropped
