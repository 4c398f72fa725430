"""What a socket that never blocks says instead of an answer."""

from __future__ import annotations


class WouldBlock(Exception):  # noqa: N818 (no error: go on when it can)
    """Nothing more can be done until the socket can be read, or written to."""

    def __init__(self, *, to_write: bool) -> None:
        super().__init__()
        self.to_write = to_write


class ClientRefusedError(OSError):
    """A client that may not come in; the text says why."""


class WrongPortError(OSError):
    """A client that speaks without TLS where there is TLS."""
