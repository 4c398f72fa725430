"""Threads that wait for connections on one epoll(7), each answering what it was woken for.

None hands a connection to another: two changes of thread take a quarter of a scrape of a thousand series. A connection
at rest holds no thread. Of those there are at most so many: one more ends the one that has been at rest for longest.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from exporter import log

_ONCE = select.EPOLLIN | select.EPOLLONESHOT  # and nobody else is woken for it until it is asked for again
_SOON = select.EPOLLOUT  # a socket that can be written to is ready at once, behind all that are ready already
_LOOKS = 4  # for connections whose time is over, in that time
_NO_DESCRIPTORS = 0.1  # seconds until accept(2) is tried again


class Threads:
    """`accept` gives a new connection, None where there was none. `answer` is given one that has something to read, or
    had: it answers one request, if there is one, and says whether the connection goes on. Connections have a `socket`,
    a `buffered` that says whether more of what was read is waiting, and a `close`."""

    def __init__(
        self,
        listener: socket.socket,
        accept: Callable[[], Any],
        answer: Callable[[Any], bool],
        *,
        threads: int,
        resting: int,
        timeout: float,
    ) -> None:
        """`resting`: how many connections may be without a request, and for how long: `timeout` in seconds."""
        self._listener = listener
        self._accept = accept
        self._answer = answer
        self._most = resting
        self._timeout = timeout
        self._resting: dict[int, tuple[Any, float]] = {}  # by descriptor, since when; the longest first
        self._armed: set[int] = set()  # descriptors that the epoll knows
        self._epoll = select.epoll()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._over = threading.Event()
        self._workers = [
            threading.Thread(target=self._work, name=f"http-{number}", daemon=True) for number in range(threads)
        ]

    def run(self) -> None:
        """Until `stop`."""
        self._epoll.register(self._end, select.EPOLLIN)
        self._epoll.register(self._listener, _ONCE)
        for worker in self._workers:
            worker.start()
        while not self._over.wait(self._timeout / _LOOKS):
            since = time.monotonic() - self._timeout
            for fd, (_, rests) in list(self._resting.items()):
                if rests > since:
                    break
                self._drop(fd)
        for worker in self._workers:
            worker.join()
        for fd in list(self._resting):
            self._drop(fd)
        self._epoll.close()
        os.close(self._end)

    def stop(self) -> None:
        """Requests that are being answered are answered; what is at rest is closed. Does not wait for that."""
        self._over.set()
        os.eventfd_write(self._end, 1)  # stays: every thread sees it

    def _work(self) -> None:
        while True:
            [(fd, _)] = self._epoll.poll(maxevents=1)
            try:
                if fd == self._end:
                    return
                if fd == self._listener.fileno():
                    self._take()
                elif (rested := self._resting.pop(fd, None)) is not None:
                    self._go_on(rested[0])
            except Exception as error:  # noqa: BLE001 - a thread that ended would be missing
                log.get().error("http server error", error=f"{type(error).__name__}: {error}")

    def _take(self) -> None:
        """A new connection; the next one wakes the next thread."""
        try:
            connection = self._accept()
        except OSError as error:  # no descriptor is left, most likely
            log.get().warning("no connection can be taken", why=os.strerror(error.errno or 0))
            if not self._drop_one():
                time.sleep(_NO_DESCRIPTORS)
            connection = None
        finally:
            self._epoll.modify(self._listener, _ONCE)
        if connection is not None:
            self._armed.discard(connection.socket.fileno())  # who had the number is gone, and out of the epoll
            self._go_on(connection)

    def _go_on(self, connection: Any) -> None:
        """Answer a request, if one has come."""
        goes_on = False
        try:
            goes_on = not (connection.buffered or _has_data(connection.socket)) or self._answer(connection)
        finally:
            if goes_on:
                self._rest(connection)
            else:
                connection.close()

    def _rest(self, connection: Any) -> None:
        fd = connection.socket.fileno()
        if len(self._resting) >= self._most:
            self._drop_one()
        events = _ONCE | _SOON if connection.buffered else _ONCE
        self._resting[fd] = (connection, time.monotonic())
        # From here on another thread may have it.
        if fd in self._armed:
            self._epoll.modify(fd, events)
        else:
            self._armed.add(fd)
            self._epoll.register(fd, events)

    def _drop_one(self) -> bool:
        """The one that has been at rest for the longest time; False where none is."""
        return any(self._drop(fd) for fd in list(self._resting)[:1])

    def _drop(self, fd: int) -> bool:
        rested = self._resting.pop(fd, None)
        if rested is not None:
            with suppress(OSError):
                rested[0].close()
        return rested is not None


def _has_data(sock: socket.socket) -> bool:
    """Whether there is something to read, the end among that."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
