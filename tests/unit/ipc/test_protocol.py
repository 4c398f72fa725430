"""Every message comes back equal, and whatever is none is refused by name."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.ipc import messages, protocol
from exporter.ipc.messages import ProtocolError
from exporter.ipc.protocol import (
    ConfigRead,
    ConfigState,
    Hello,
    Loaded,
    Measurements,
    Message,
    ProgramList,
    ProgramState,
    Ready,
    ReloadReport,
    Stored,
    ToServer,
    WebConfigRead,
    WebState,
)
from exporter.ipc.run_times import RunTime, RunTimes
from exporter.program import Descriptors, Program, State, Type
from exporter.spec import CountsModel, DecodeStep, Limits, ProgramSpec, TlsSettings, WebSettings

TEXT = st.text(max_size=5)
SPEC = ProgramSpec(name="a", variants=[], metrics=[], source=Path("a.c"), text="")
PROGRAM = Program("a", State.RUNNING)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bool: st.booleans(),
    NoneType: st.none(),
    Path: st.sampled_from([Path("a.c"), Path("/b/c")]),
    Any: st.none() | TEXT | st.integers(),
    Type: st.sampled_from([Type("int", "u8", 1), Type("array", "u8", 4, element=Type("int", "u8", 1), count=4)]),
}


def values(of: Any, least: int | None) -> st.SearchStrategy[Any]:
    """Values of a field's type; numbers are not below `least`."""
    origin, arguments = get_origin(of), get_args(of)
    if of in PLAIN:
        return PLAIN[of]
    if of is int:
        return st.integers(min_value=least, max_value=1 << 70)
    if of is float:
        return st.floats(min_value=least, allow_nan=False, allow_infinity=False)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of([values(each, least) for each in arguments])
    if origin is list:
        return st.lists(values(arguments[0], least), max_size=2)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0], least), max_size=2, unique=arguments[0] is str).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(each, least) for each in arguments))
    if origin in (dict, Mapping):
        return st.dictionaries(TEXT, values(arguments[1], least), max_size=2)
    if issubclass(of, StrEnum):
        return st.sampled_from(of)
    return models(of)


def models(of: Any) -> st.SearchStrategy[Any]:
    hints, least = get_type_hints(of), 0 if issubclass(of, CountsModel) else None
    made = {each.name: values(hints[each.name], least) for each in fields(of)}
    if of is TlsSettings:
        made |= {name: st.sampled_from(["TLS12", "TLS13"]) for name in ("min_version", "max_version")}
    if of is DecodeStep:
        made["argument"] |= st.dictionaries(st.integers() | TEXT, TEXT, max_size=2)
    if of is Loaded:
        made["links"] = st.integers(0, 3)
    if of is Stored:
        made |= {"names": st.just(()), "loaded": st.builds(Loaded, program=models(Program))}
    return st.builds(of, **made)


MESSAGES: list[type[Message]] = [
    *(Hello, ProgramList, ProgramState, ConfigState, Measurements, WebState),
    *(Ready, Loaded, ConfigRead, WebConfigRead, Stored),
]


def test_every_kind_is_tested() -> None:
    assert set(MESSAGES) == set(protocol._KINDS.values())


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.kind)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_message_comes_back_equal(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(models(kind))
    assert protocol.decode(protocol.encode(message), Message) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def mutated(document: Any, data: st.DataObject) -> Any:
    """The document with one value somewhere in it replaced, added or taken away."""
    if not document or not isinstance(document, dict | list) or data.draw(st.integers(0, 4)) == 0:
        return data.draw(JSON)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = data.draw(st.sampled_from(keys))
    match data.draw(st.integers(0, 9)):
        case 0:
            del document[key]
        case 1 if isinstance(document, dict):
            document[data.draw(TEXT)] = data.draw(JSON)
        case _:
            document[key] = mutated(document[key], data)
    return document


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.kind)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_mutated_message_is_a_message_or_refused(kind: type[Message], data: st.DataObject) -> None:
    document = mutated(json.loads(protocol.encode(data.draw(models(kind)))), data)
    try:
        message = protocol.decode(json.dumps(document).encode(), Message)
    except ProtocolError:
        return
    assert protocol.decode(protocol.encode(message), Message) == message


@given(st.binary(max_size=50))
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode(content, Message)


def hello(**changes: Any) -> dict[str, Any]:
    message = Hello("1.0", restarts=2, programs=("a",), files=("cgroups",), limits=Limits())
    return {**json.loads(protocol.encode(message)), **changes}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "a message that is not a JSON object"),
        (b"[" * 100_000, "RecursionError: maximum recursion depth exceeded"),
        (hello(version=3), "protocol version 3, expected 2"),
        (hello(version="x" * 1000), "protocol version 'xxxxxxxxxxxx...xxxxxxxxxxxxx', expected 2"),
        (hello(kind="steady"), "unknown message kind 'steady'"),
        (hello(kind=None), "unknown message kind None"),
        (hello(kind=["hello"]), "unknown message kind ['hello']"),
        (hello(kind="ready"), "message kind ready is not for this process"),
        (hello(restarts=-1), "ValueError: Hello.restarts: -1 is out of range"),
        (hello(restarts=2.5), "ValueError: Hello.restarts: 2.5 is of another type"),
        (hello(restarts=True), "ValueError: Hello.restarts: True is of another type"),
        (hello(programs=["a", "a"]), "ValueError: a name occurs twice in a, a"),
        (hello(limits={"series": -1}), "ValueError: Limits.series: -1 is out of range"),
        (hello(limits=None), "ValueError: Hello.limits: None is of another type"),
        (hello(more=1), "ValueError: Hello: no field more"),
        (hello(web={"settings": None}), "ValueError: WebState: .* missing 2 required positional arguments: .*"),
        (
            hello(web={"settings": {"tls": {"cert": "c", "key": "k", "min_version": "TLS11"}}}),
            "ValueError: TlsSettings: no versions TLS11 and TLS13",
        ),
    ],
)
def test_what_is_wrong_is_named(content: Any, error: str) -> None:
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(ProtocolError) as raised:
        protocol.decode(content, ToServer)
    if ".*" in error:
        assert str(raised.value).startswith(error.partition(".*")[0])
    else:
        assert error in str(raised.value)
    assert raised.value.program is None


def test_no_key_of_a_web_configuration_is_in_an_error() -> None:
    tls = TlsSettings(cert="certificate", key="-----BEGIN PRIVATE KEY-----\n" + "secret" * 30)
    state = json.loads(protocol.encode(WebState(WebSettings(tls, users={"alice": "hash" * 15}), True, 1.0)))
    for path in (("settings",), ("settings", "tls"), ("settings", "users")):
        document = json.loads(json.dumps(state))
        at = document
        for key in path[:-1]:
            at = at[key]
        for wrong in ({**at[path[-1]], "new": 1}, [at[path[-1]]], json.dumps(at[path[-1]])):
            at[path[-1]] = wrong
            with pytest.raises(ProtocolError) as raised:
                protocol.decode(json.dumps(document).encode(), ToServer)
            assert "secretsecret" not in str(raised.value)
            assert "hashhashhash" not in str(raised.value)


def test_the_program_of_a_message_that_is_refused_is_known() -> None:
    document = json.loads(protocol.encode(ProgramState(PROGRAM, SPEC)))
    for wrong, name in (({"spec": 7}, "a"), ({"program": {"name": "b"}}, "b"), ({"program": 7}, "")):
        with pytest.raises(ProtocolError) as raised:
            protocol.decode(json.dumps({**document, **wrong}).encode(), ToServer)
        assert raised.value.program == name


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = messages.pair()
    with left, right:
        yield left, right


def files(count: int) -> list[int]:
    return [os.memfd_create(f"n{number}") for number in range(count)]


@pytest.mark.parametrize("count", [0, 2, 4])
def test_the_descriptors_are_counted_and_closed_where_they_are_wrong(
    ends: tuple[socket.socket, socket.socket], count: int
) -> None:
    message = ProgramState(PROGRAM, SPEC, ("m", "n"), totals=True)
    fds = files(count)
    messages.send(ends[0], protocol.encode(message), fds)
    messages.close(fds)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolError, match=f"message kind program with {count} descriptors, expected 3") as raised:
        protocol.receive(ends[1], ToServer)
    assert raised.value.program == "a"
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptors_come_back_by_name(ends: tuple[socket.socket, socket.socket]) -> None:
    fds = files(6)
    sent = Descriptors({"m": fds[0], "n": fds[1]}, {"m": fds[2]}, {"f": fds[3]}, fds[4:])
    message, numbers = Loaded.of(PROGRAM, sent)
    assert numbers == fds
    protocol.send(ends[0], message, numbers)
    received = protocol.receive(ends[1], Loaded)
    assert received is not None
    assert received[0] == message
    came = received[0].with_numbers(received[1])
    for theirs, ours in ((came.maps, sent.maps), (came.readonly, sent.readonly), (came.programs, sent.programs)):
        assert theirs.keys() == ours.keys()
        assert all(os.path.sameopenfile(theirs[name], ours[name]) for name in ours)
    assert [os.fstat(fd).st_ino for fd in came.links] == [os.fstat(fd).st_ino for fd in sent.links]
    came.close()
    sent.close()


def test_of_the_server_one_small_packet_is_read(ends: tuple[socket.socket, socket.socket]) -> None:
    protocol.send_ready(ends[0])
    assert protocol.receive_ready(ends[1]) == Ready()
    ends[0].send(protocol.encode(Ready()) + b" " * 1000)  # more than that is cut off and lost
    assert protocol.receive_ready(ends[1]) == Ready()
    protocol.send(ends[0], Ready())
    with pytest.raises(ProtocolError):  # no document in a memfd: the server could give any size
        protocol.receive_ready(ends[1])
    ends[0].close()
    assert protocol.receive_ready(ends[1]) is None


def test_number_keys_of_a_decoder_survive() -> None:
    step = DecodeStep(name="map", argument={2: "ipv4", 10: "ipv6"})
    assert DecodeStep.model_validate(json.loads(json.dumps(step.model_dump()))) == step


def test_run_times_are_not_negative() -> None:
    with pytest.raises(ValueError, match=r"RunTime\.share: -0\.5 is out of range"):
        RunTime(share=-0.5)
    with pytest.raises(ValueError, match=r"RunTimes\.trap: nan is out of range"):
        RunTimes(trap=float("nan"))
    with pytest.raises(ValueError, match=r"ReloadReport\.timestamp: inf is out of range"):
        ReloadReport("ab", float("inf"), successful=True, disabled=False)
