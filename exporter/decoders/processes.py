"""Decoders of who does what: syscall, username."""

from __future__ import annotations

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.kernel import syscalls
from exporter.spec import DecodeStep

NO_UID = 0xFFFFFFFF  # INVALID_UID (include/linux/uidgid.h)


def _syscall(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """By the 64-bit table of this architecture. A 32-bit process has numbers of its own, which cannot be told apart."""
    table = syscalls.names(names.machine)
    if names.machine == "x86_64":
        return lambda number: table.get(number & ~syscalls.X32_BIT if number > 0 else number)
    return table.get


def _username(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """As the host's /etc/passwd has it: the kernel knows users by the numbers of the initial user namespace."""
    return lambda uid: names.user(uid & NO_UID)


DECODERS = (
    Decoder("syscall", takes=("int",), gives="text", bind=_syscall),
    Decoder("username", takes=("int",), gives="text", bind=_username, volatile=True),
)
