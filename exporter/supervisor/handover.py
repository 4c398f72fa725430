"""What a loader hands to the supervisor: a program and its descriptors, or why there is none."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from exporter.ipc import messages
from exporter.program import Descriptors, Program, Reason, State, from_json, to_json
from exporter.spec import ProgramSpec

LoadFunction = Callable[[ProgramSpec], tuple[Program, Descriptors]]


def load_and_send(load: LoadFunction, spec: ProgramSpec, sock: socket.socket) -> NoReturn:
    """The loader's whole life. Its descriptors stay open in the supervisor; `os._exit` skips every destructor."""
    code = 1
    try:
        program, fds = load(spec)
        document, numbers = pack(program, fds)
        messages.send(sock, document, numbers)
        code = 0
    except BaseException as error:  # noqa: BLE001 - reported as data, the daemon goes on
        text = f"{spec.name}: load: internal error: {type(error).__name__}: {error} (please report it)"
        with contextlib.suppress(OSError):
            document, _ = pack(failed(spec, Reason.INTERNAL, text), Descriptors())
            messages.send(sock, document)
    finally:
        os._exit(code)


def pack(program: Program, fds: Descriptors) -> tuple[dict[str, Any], list[int]]:
    """The document that says which descriptor is what, and the descriptors in that order."""
    document = {
        **to_json(program),
        "maps": list(fds.maps),
        "readonly": list(fds.readonly),
        "programs": list(fds.programs),
        "links": len(fds.links),
    }
    return document, [*fds.maps.values(), *fds.readonly.values(), *fds.programs.values(), *fds.links]


def unpack(document: dict[str, Any], numbers: list[int]) -> tuple[Program, Descriptors]:
    """What was given to `pack`, with the numbers that the descriptors have here.

    ProtocolError for a document that `pack` did not make, and then the descriptors are closed.
    """
    rest = iter(numbers)
    fds = Descriptors()
    try:
        program = from_json(document)
        fds.maps = {name: next(rest) for name in document["maps"]}
        fds.readonly = {name: next(rest) for name in document["readonly"]}
        fds.programs = {name: next(rest) for name in document["programs"]}
    except (AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        for fd in numbers:
            os.close(fd)
        raise messages.ProtocolError(f"no document of a program: {type(error).__name__}: {error}") from error
    fds.links = list(rest)
    return program, fds


def failed(spec: ProgramSpec, reason: Reason, text: str) -> Program:
    return Program(spec.name, State.FAILED, reason=reason, text=text)


def failed_without_a_word(spec: ProgramSpec, status: int) -> Program:
    """A program whose loader ended with this exit code, or by signal -`status`, and sent nothing."""
    if status >= 0:
        text = f"{spec.name}: load: the loader ended with exit code {status} and no word (please report it)"
        return failed(spec, Reason.INTERNAL, text)
    hint = "out of memory? see the kernel's log" if status == -signal.SIGKILL else "see the kernel's log"
    text = f"{spec.name}: load: the loader was killed by {signal.Signals(-status).name} ({hint})"
    return failed(spec, Reason.KILLED, text)
