"""Chains that cannot work, each with its exact message, and what a chain says of itself."""

from __future__ import annotations

from typing import Any, cast

import pytest

from exporter.decoders import ChainError, all_decoders, chain, check_chain
from exporter.program import Type
from exporter.spec import DecodeStep

U32 = Type("int", "u32", 4)
U64 = Type("int", "u64", 8)
CHAR = Type("int", "char", 1, signed=True)
COMM = Type("array", "", 16, element=CHAR, count=16)
MAC = Type("array", "", 6, element=Type("int", "u8", 1), count=6)
KEY = Type("struct", "key", 16)
STATE = Type("enum", "state", 4, values=(("IDLE", 0),))

ALL = (
    "bool, cgroup, cidr, container, dname, enum, errno, hex, ifname, inet, int, kstack, ksym, majorminor, map, "
    "pci_class, pci_device, pci_subclass, pci_vendor, pod, port_class, proto, regexp, string, syscall, systemd_unit, "
    "tcp_state, uint, username"
)


def step(name: str, argument: Any = None, unknown: str | None = None, **options: Any) -> DecodeStep:
    return DecodeStep(name=name, argument=argument, unknown=unknown, options=options)


def test_all_decoders_of_the_schema_are_there() -> None:
    assert ", ".join(sorted(all_decoders())) == ALL


@pytest.mark.parametrize(
    ("steps", "messages"),
    [
        ([step("uint")], []),
        ([step("cgroup"), step("systemd_unit")], []),
        ([step("string"), step("map", {"a": "b"}, unknown="keep")], []),
        ([step("enum", "skb_drop_reason", strip="SKB_DROP_REASON_")], []),
        ([], ["decode is empty: leave it out for the decoder that fits the field's type"]),
        ([step("uintt")], ['no decoder \'uintt\' (did you mean "uint" or "int"?)']),
        ([step("xyzzy")], [f"no decoder 'xyzzy' (one of {ALL})"]),
        ([step("string"), step("regexp", ["^a"])], []),
        ([step("regexp", "^a(b)")], []),
        ([step("cgroup"), step("pod")], []),
        ([step("cidr", 24, v6=56)], []),
        ([step("cidr", ["10.0.0.0/8", "fc00::/7"])], []),
        ([step("cidr", {"10.0.0.0/8": "internal"})], []),
        ([step("kstack", "stacks")], []),
        *(
            (
                [step("regexp", wrong)],
                ["decoder regexp: the argument is a list of patterns, as in {regexp: ['^(kswapd)', '^(systemd.*)$']}"],
            )
            for wrong in cast(tuple[Any, ...], (None, [], 7, {"a": "b"}, ["a", 7]))
        ),
        (
            [step("regexp", ["ok", "(a"])],
            ["decoder regexp: pattern '(a': missing ), unterminated subpattern at position 0 (Python's re)"],
        ),
        ([step("uint"), step("regexp", "a")], ["decoder regexp takes text, but uint before it gives int"]),
        *(
            (
                [step("cidr", wrong)],
                [
                    "decoder cidr: the argument is none of {cidr: 24, v6: 56}, {cidr: [10.0.0.0/8]}, "
                    "{cidr: {10.0.0.0/8: internal}}, or none for the key of an LPM trie"
                ],
            )
            for wrong in cast(tuple[Any, ...], (33, -1, True, "10.0.0.0/8", [], {}))
        ),
        ([step("cidr", 24, v6=129)], ["decoder cidr: v6 is the length of an IPv6 prefix, 0 to 128"]),
        ([step("cidr", v6=56)], ["decoder cidr: v6 goes with the length for IPv4"]),
        (
            [step("cidr", ["10.0.0.0/8"], v6=56)],
            ["decoder cidr: v6 goes with the length for IPv4, as in {cidr: 24, v6: 56}"],
        ),
        ([step("cidr", ["10.0.0.1/8"])], ["decoder cidr: 10.0.0.1/8 has host bits set"]),
        (
            [step("cidr", {"ten": "x"})],
            ["decoder cidr: 'ten' does not appear to be an IPv4 or IPv6 network"],
        ),
        ([step("cidr", {"10.0.0.0/8": ["x"]})], ["decoder cidr: ['x'] is not a text"]),
        ([step("inet"), step("cidr", 24)], ["decoder cidr takes bytes, but inet before it gives text"]),
        (
            [step("kstack", 7)],
            ["decoder kstack: the argument is the name of a BPF_STACK_TRACE map, as in {kstack: stacks}"],
        ),
        (
            [step("uint"), step("kstack")],
            [
                "decoder kstack takes the frames, u64[N], but what uint gives is none "
                "(for an id name the map: {kstack: MAP})"
            ],
        ),
        ([step("inet", 4)], ["decoder inet takes no argument"]),
        ([step("ksym", "offset")], ["decoder ksym takes no argument"]),
        ([step("uint", strip="A")], ["decoder uint has no option 'strip' (it has none)"]),
        ([step("enum", "x", strp="A")], ["decoder enum has no option 'strp' (it has strip)"]),
        ([step("uint", unknown="x")], ["decoder uint always has an answer: leave out `unknown`"]),
        ([step("proto", unknown="")], ["decoder proto: unknown is keep, drop or a text that is not empty"]),
        ([step("map")], ["decoder map: the argument is a table, as in {map: {0: read, 1: write}}"]),
        ([step("map", {})], ["decoder map: the argument is a table, as in {map: {0: read, 1: write}}"]),
        ([step("map", {True: "a"})], ["decoder map: key True is neither a number nor a text"]),
        ([step("map", {0.5: "a"})], ["decoder map: key 0.5 is neither a number nor a text"]),
        ([step("map", {0: ["a"]})], ["decoder map: value ['a'] of key 0 is not a text"]),
        ([step("map", {0: "a", "b": "c"})], ["decoder map: keys are all numbers or all texts"]),
        (
            [step("enum", 7)],
            ["decoder enum: the argument is the name of a kernel enum, as in {enum: skb_drop_reason}"],
        ),
        (
            [step("enum", "skb_drop_reason", strip=3)],
            ["decoder enum: strip is a text, as in {enum: skb_drop_reason, strip: SKB_DROP_REASON_}"],
        ),
        (
            [step("uint"), step("systemd_unit")],
            ["decoder systemd_unit takes text, but uint before it gives int"],
        ),
        ([step("string"), step("errno")], ["decoder errno takes int, but string before it gives text"]),
        ([step("uint"), step("inet")], ["decoder inet takes bytes, but uint before it gives int"]),
        ([step("proto"), step("hex")], ["decoder hex takes int or bytes, but proto before it gives text"]),
        ([step("uint"), step("enum")], ["decoder enum without an argument must come first (uint before it)"]),
        (
            [step("proto"), step("map", {6: "tcp"})],
            ["decoder map: key 6 is a number, but proto gives a text (write '6' in quotes)"],
        ),
        (
            [step("uint"), step("map", {"6": "tcp"})],
            ["decoder map: key '6' is a text, but uint gives a number"],
        ),
        (
            [step("conainer"), step("uint", 3), step("container")],
            [
                "no decoder 'conainer' (did you mean \"container\"?)",
                "decoder uint takes no argument",
                "decoder container takes text, but uint before it gives int",
            ],
        ),
    ],
)
def test_mistakes_that_the_configuration_alone_shows(steps: list[DecodeStep], messages: list[str]) -> None:
    assert check_chain(steps) == messages


@pytest.mark.parametrize(
    ("field", "steps", "message"),
    [
        (U64, [step("string")], "decoder string takes bytes, but the field is a number (u64)"),
        (
            U64,
            [step("systemd_unit")],
            "decoder systemd_unit takes text, but comes first and the field is a number (u64) (put cgroup before it)",
        ),
        (MAC, [step("container")], "decoder container takes text, but comes first and the field is u8[6]"),
        (COMM, [step("errno")], "decoder errno takes int, but comes first and the field is char[16]"),
        (KEY, [step("uint")], "decoder uint takes int, but comes first and the field is struct key"),
        (MAC, [step("inet")], "decoder inet takes 4 or 16 bytes, but the field has 6 (u8[6])"),
        (U64, [step("inet")], "decoder inet takes 4 or 16 bytes, but the field has 8 (u64)"),
        (U32, [step("enum")], "decoder enum: the field is u32, not an enum (name one, as in {enum: skb_drop_reason})"),
        (U32, [step("map", {"a": "b"})], "decoder map: key 'a' is a text, but the field is a number"),
        (
            COMM,
            [step("map", {1: "b"})],
            "decoder map: key 1 is a number, but the field is a text (write '1' in quotes)",
        ),
        (
            U64,
            [step("pod")],
            "decoder pod takes text, but comes first and the field is a number (u64) (put cgroup before it)",
        ),
        (U32, [step("regexp", "a")], "decoder regexp takes text, but comes first and the field is a number (u32)"),
        (U32, [step("dname")], "decoder dname takes bytes, but the field is a number (u32)"),
        (MAC, [step("cidr", 24)], "decoder cidr takes 4 or 16 bytes, but the field has 6 (u8[6])"),
        (
            U32,
            [step("cidr")],
            "decoder cidr without an argument takes the key of an LPM trie, a u32 and 4 or 16 bytes, but the field is "
            "u32 (else write a length, as in {cidr: 24})",
        ),
        (
            COMM,
            [step("kstack", "stacks")],
            "decoder kstack: char[16] is no id of a stack in stacks (the s64 of its get_stackid())",
        ),
        (
            U64,
            [step("kstack")],
            "decoder kstack takes the frames, u64[N], but u64 is none (for an id name the map: {kstack: MAP})",
        ),
        (KEY, None, "the field is struct key, which has no text of its own: name one of its members"),
        (
            Type("union", "", 8),
            None,
            "the field is an anonymous union, which has no text of its own: name one of its members",
        ),
        (MAC, None, "the field is u8[6]: name an element, as in field[0], or decode it by hex, inet or string"),
        (
            Type("float", "double", 8),
            None,
            "the field is double, a floating-point number: BPF programs have none (use an integer)",
        ),
        (U32, [step("uint", 3), step("nope!")], f"decoder uint takes no argument; no decoder 'nope!' (one of {ALL})"),
    ],
)
def test_mistakes_that_the_type_of_the_field_shows(field: Type, steps: list[DecodeStep] | None, message: str) -> None:
    with pytest.raises(ChainError) as raised:
        chain(field, steps)
    assert str(raised.value) == message


def test_a_chain_names_the_kernel_enums_that_it_will_ask_for() -> None:
    assert chain(U32, [step("enum", "skb_drop_reason")]).kernel_enums == ("skb_drop_reason",)
    assert chain(STATE, [step("enum")]).kernel_enums == ()


def test_a_chain_names_the_maps_of_stacks_that_it_will_ask_for() -> None:
    assert chain(U32, [step("kstack", "stacks")]).stack_maps == ("stacks",)
    assert chain(U32, [step("uint")]).stack_maps == ()
