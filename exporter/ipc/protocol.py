"""The messages between the exporter's processes: one dataclass for each, made into bytes and read back here alone.

A message is a JSON object with `version`, `kind` and the fields of its dataclass; messages.py carries it together with
file descriptors, whose number and order the dataclass states. The receiver validates every field and refuses whatever
is not a message for it by a ProtocolError that says what came.

    supervisor -> server         Hello first; then ConfigState, Measurements, ProgramState, ProgramList, WebState
    server -> supervisor         Ready
    loader -> supervisor         Loaded
    config reader -> supervisor  ConfigRead, WebConfigRead
    supervisor -> the next one   Stored, which the service manager keeps

A stream ends with its socket: there is no message for it.
"""

from __future__ import annotations

import json
import reprlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from exporter.ipc import messages
from exporter.ipc.messages import ProtocolError
from exporter.ipc.run_times import RunTimes
from exporter.program import Descriptors, Program
from exporter.spec import Config, CountsModel, Limits, ProgramSpec, Sources, WebSettings

VERSION = 2  # of messages between processes of one boot; a process refuses every other one
STORE_VERSION = 1  # of what outlives an upgrade of the exporter in the service manager's store
READY_LIMIT = 64  # bytes of a message of the server


class VersionError(ProtocolError):
    """The message is of another version."""


class Message(CountsModel):
    """The base of all messages. `kind` names the message on the wire, `version` its form."""

    __slots__ = ()
    kind: ClassVar[str]
    version: ClassVar[int] = VERSION

    @property
    def descriptors(self) -> int:
        """Return how many file descriptors belong to the message."""
        return 0


class ToServer(Message):
    """The base of what the supervisor sends to the server."""

    __slots__ = ()


# Supervisor to server


@dataclass(frozen=True, slots=True)
class ReloadReport(CountsModel):
    """The outcome of the configuration's reloads.

    sha256, timestamp  of the last configuration that runs as it is written, in Unix time
    successful         what runs is what the files said when they were last read
    disabled           the disable file exists, and nothing is attached
    reloads, failures  how many reloads there were so far, and how many of them were not successful
    """

    sha256: str
    timestamp: float
    successful: bool
    disabled: bool
    reloads: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class WebState(ToServer):
    """The last web configuration without mistakes.

    settings    None where there is no web configuration file
    successful  the file still says that
    timestamp   when it was read, in Unix time
    """

    kind = "web"
    settings: WebSettings | None
    successful: bool
    timestamp: float


@dataclass(frozen=True, slots=True)
class Hello(ToServer):
    """The first message to each server.

    release   of the exporter: the supervisor's `__version__`
    restarts  how many servers there were before
    programs  the names of all programs, in the order of the configuration
    files     what only root can open, by the names of decoders.names; their descriptors come with the message
    web       None without --web.config.file
    """

    kind = "hello"
    release: str
    restarts: int
    programs: tuple[str, ...]
    files: tuple[str, ...]
    limits: Limits
    web: WebState | None = None

    def __post_init__(self) -> None:
        CountsModel.__post_init__(self)
        _check_unique(self.programs, self.files)

    @property
    def descriptors(self) -> int:
        return len(self.files)


@dataclass(frozen=True, slots=True)
class ProgramList(ToServer):
    """The programs from now on. The change takes effect when `following` messages ProgramState came after this one."""

    kind = "programs"
    programs: tuple[str, ...]
    following: int = 0

    def __post_init__(self) -> None:
        CountsModel.__post_init__(self)
        _check_unique(self.programs)


@dataclass(frozen=True, slots=True)
class ProgramState(ToServer):
    """The present state of one program.

    maps    names of its maps; their descriptors come with the message, in this order
    totals  one descriptor more: the memory of the program's totals
    """

    kind = "program"
    program: Program
    spec: ProgramSpec
    maps: tuple[str, ...] = ()
    totals: bool = False

    def __post_init__(self) -> None:
        _check_unique(self.maps)

    @property
    def descriptors(self) -> int:
        return len(self.maps) + self.totals


@dataclass(frozen=True, slots=True)
class ConfigState(ToServer):
    """The outcome of the configuration's reloads, and its limits."""

    kind = "configuration"
    report: ReloadReport
    limits: Limits


@dataclass(frozen=True, slots=True)
class Measurements(ToServer):
    """The supervisor's measurements. `armed`: a crash of the host would be remembered; None without a quarantine."""

    kind = "measurements"
    run_times: RunTimes
    armed: bool | None = None


# Server to supervisor


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """The server serves, and every program was tried."""

    kind = "ready"


# Children to supervisor


@dataclass(frozen=True, slots=True)
class Loaded(Message):
    """A program after its loader tried it: running with its descriptors, or why it does not run.

    The descriptors are those of `maps`, of `readonly`, of `programs` and `links` links, in this order (program.py).
    """

    kind = "loaded"
    program: Program
    maps: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    links: int = 0

    def __post_init__(self) -> None:
        CountsModel.__post_init__(self)
        _check_unique(self.maps, self.readonly, self.programs)

    @classmethod
    def of(cls, program: Program, fds: Descriptors) -> tuple[Loaded, list[int]]:
        """Return the message and the descriptors that belong to it."""
        message = cls(program, tuple(fds.maps), tuple(fds.readonly), tuple(fds.programs), len(fds.links))
        return message, [*fds.maps.values(), *fds.readonly.values(), *fds.programs.values(), *fds.links]

    @property
    def descriptors(self) -> int:
        return len(self.maps) + len(self.readonly) + len(self.programs) + self.links

    def with_numbers(self, fds: Sequence[int]) -> Descriptors:
        """Return the descriptors that came with the message, by name."""
        rest = iter(fds)
        maps, readonly, programs = (
            {name: next(rest) for name in names} for names in (self.maps, self.readonly, self.programs)
        )
        return Descriptors(maps, readonly, programs, list(rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesRead(Message):
    """The findings of a child that read files.

    mistakes  where and what: (file:line:column, sentence), in the order of reading
    warnings  matters of taste, in the same form
    sources   the files
    """

    mistakes: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    sources: Sources = field(default_factory=Sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRead(FilesRead):
    """The configuration. `config`: None where the files have mistakes."""

    kind = "config_read"
    config: Config | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfigRead(FilesRead):
    """The web configuration. `settings`: None where the file has mistakes."""

    kind = "web_config_read"
    settings: WebSettings | None = field(default=None, repr=False)


# Supervisor to the next supervisor


@dataclass(frozen=True, slots=True)
class Stored(Message):
    """A running program whose descriptors the service manager keeps.

    names         what the manager calls the descriptors of `loaded`, in its order
    totals        what it calls the memory of totals; None where there is none
    label_length  limits.label_length that the totals were made for
    since         when the program was loaded, by the monotonic clock
    """

    kind = "stored"
    version = STORE_VERSION
    spec: ProgramSpec
    loaded: Loaded
    names: tuple[str, ...]
    totals: str | None
    label_length: int
    since: float

    def __post_init__(self) -> None:
        CountsModel.__post_init__(self)
        _check_unique(self.names)
        if len(self.names) != self.loaded.descriptors:
            raise ValueError(f"{len(self.names)} names for {self.loaded.descriptors} descriptors")


def _check_unique(*groups: tuple[str, ...]) -> None:
    for names in groups:
        if len(set(names)) != len(names):
            raise ValueError(f"a name occurs twice in {', '.join(names)}")


_KINDS: dict[str, type[Message]] = {
    each.kind: each
    for each in (
        *(Hello, ProgramList, ProgramState, ConfigState, Measurements, WebState),
        *(Ready, Loaded, ConfigRead, WebConfigRead, Stored),
    )
}

AnyMessage = TypeVar("AnyMessage", bound=Message)


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    document = {"version": message.version, "kind": message.kind, **message.model_dump()}
    return json.dumps(document, separators=(",", ":")).encode()


def decode(content: bytes, wanted: type[AnyMessage]) -> AnyMessage:
    """Return the message of this type, or of a type derived from it. ProtocolError for anything else."""
    document = None
    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            raise ProtocolError("a message that is not a JSON object")
        version, kind = document.get("version"), document.get("kind")
        known = _KINDS.get(kind) if isinstance(kind, str) else None
        expected = VERSION if known is None else known.version
        if version != expected:
            raise VersionError(f"protocol version {reprlib.repr(version)}, expected {expected}")
        if known is None:
            raise ProtocolError(f"unknown message kind {reprlib.repr(kind)}")
        if not issubclass(known, wanted):
            raise ProtocolError(f"message kind {kind} is not for this process")
        values = {name: value for name, value in document.items() if name not in ("version", "kind")}
        message = known.model_validate(values)
        assert isinstance(message, wanted)
        return message
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"{type(error).__name__}: {error}".partition("\n")[0], _program(document)) from error


def _program(document: object) -> str | None:
    """Return the name of the program that a message which cannot be decoded is about."""
    match document:
        case {"kind": ProgramState.kind, "program": {"name": str(name)}}:
            return name
        case {"kind": ProgramState.kind}:
            return ""
    return None


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a message and its descriptors; the caller keeps and closes its own copies. OSError if the peer is gone."""
    assert len(fds) == message.descriptors
    messages.send(sock, encode(message), fds)


def receive(sock: socket.socket, wanted: type[AnyMessage]) -> tuple[AnyMessage, list[int]] | None:
    """Return the next message and its descriptors (the caller's to close), None at the end of the stream.

    ProtocolError for anything but a message of this type with its descriptors; those that came are closed.
    """
    received = messages.receive(sock)
    if received is None:
        return None
    content, fds = received
    try:
        message = decode(content, wanted)
        if len(fds) != message.descriptors:
            text = f"message kind {message.kind} with {len(fds)} descriptors, expected {message.descriptors}"
            raise ProtocolError(text, message.program.name if isinstance(message, ProgramState) else None)
    except BaseException:
        messages.close(fds)
        raise
    return message, fds


def send_ready(sock: socket.socket) -> None:
    """Tell the supervisor that the server serves."""
    sock.send(encode(Ready()))


def receive_ready(sock: socket.socket) -> Ready | None:
    """Return what the server sent, None at the end of the stream. ProtocolError for anything but Ready.

    The server is not trusted: one small packet is read, without descriptors.
    """
    content = sock.recv(READY_LIMIT)
    return decode(content, Ready) if content else None
