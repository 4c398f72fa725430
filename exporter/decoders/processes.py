"""Decoders of system calls and users: syscall (syscalls(2)), username (passwd(5))."""

from __future__ import annotations

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.kernel import syscalls
from exporter.spec import DecodeStep

NO_UID = 0xFFFFFFFF  # INVALID_UID (include/linux/uidgid.h)


def _syscall(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """Decode by the 64-bit table of this architecture. Numbers of 32-bit processes differ and cannot be
    distinguished."""
    table = syscalls.names(names.machine)
    if names.machine == "x86_64":
        return lambda number: table.get(number & ~syscalls.X32_BIT if number > 0 else number)
    return table.get


def _username(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """Decode by the host's /etc/passwd: the kernel uses the user ids of the initial user namespace."""
    return lambda uid: names.users.name(uid & NO_UID)


DECODERS = (
    Decoder("syscall", takes=("int",), gives="text", bind=_syscall),
    Decoder("username", takes=("int",), gives="text", bind=_username, volatile=True),
)
