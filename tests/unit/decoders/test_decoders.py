"""Each decoder on the bytes of a field: ordinary values, edges, and data that nobody expected."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.decoders import Names, all_decoders, chain
from exporter.decoders.cgroups import container, unit
from exporter.program import Member, Type
from exporter.spec import DecodeStep, LabelSpec, MetricSpec, ProgramSpec

U8, U16, U32, U64 = (Type("int", f"u{8 * size}", size) for size in (1, 2, 4, 8))
S8, S16, S32, S64 = (Type("int", f"s{8 * size}", size, signed=True) for size in (1, 2, 4, 8))
BE16, BE32, BE64 = (Type("int", f"__be{8 * size}", size) for size in (2, 4, 8))
LE16 = Type("int", "__le16", 2)
BOOL = Type("int", "bool", 1, encoding="bool")
CHAR = Type("int", "char", 1, signed=True)
POINTER = Type("pointer", "", 8)
STATE = Type("enum", "state", 4, values=(("IDLE", 0), ("BUSY", 1), ("ALSO_BUSY", 1), ("BAD", 0xFFFFFFFF)))
SIGNED_STATE = Type("enum", "state", 4, signed=True, values=(("BAD", -1), ("IDLE", 0)))
IN6 = Type("struct", "in6_addr", 16)


def array(element: Type, count: int) -> Type:
    return Type("array", "", element.size * count, element=element, count=count)


def trie_key(size: int) -> Type:
    return Type("struct", "lpm", 4 + size, members=(Member("prefixlen", 0, U32), Member("data", 32, array(U8, size))))


LPM4, LPM6 = trie_key(4), trie_key(16)


def host(number: int, size: int) -> bytes:
    return number.to_bytes(size, sys.byteorder, signed=number < 0)


def decoded(field: Type, raw: bytes, *steps: DecodeStep, names: Names | None = None) -> str | None:
    return chain(field, list(steps) or None).bind(names or Names.empty())(raw)


def step(name: str, argument: Any = None, unknown: str | None = None, **options: Any) -> DecodeStep:
    return DecodeStep(name=name, argument=argument, unknown=unknown, options=options)


@pytest.mark.parametrize(
    ("field", "raw", "text"),
    [
        (U8, b"\xff", "255"),
        (U16, host(443, 2), "443"),
        (U32, host(0xFFFFFFFF, 4), "4294967295"),
        (U64, host((1 << 64) - 1, 8), "18446744073709551615"),
        (S8, b"\xff", "-1"),
        (S16, host(-32768, 2), "-32768"),
        (S32, host(-1, 4), "-1"),
        (S64, host(-(1 << 63), 8), "-9223372036854775808"),
        (BE16, b"\x01\xbb", "443"),
        (BE32, b"\x00\x00\x00\x01", "1"),
        (BE64, b"\x00" * 7 + b"\x02", "2"),
        (LE16, b"\xbb\x01", "443"),
        (BOOL, b"\x00", "false"),
        (BOOL, b"\x01", "true"),
        (BOOL, b"\x07", "true"),
        (POINTER, host(0xFFFFFFFF81000000, 8), "0xffffffff81000000"),
        (STATE, host(0, 4), "IDLE"),
        (STATE, host(1, 4), "BUSY"),
        (STATE, host(0xFFFFFFFF, 4), "BAD"),
        (STATE, host(7, 4), "unknown"),
        (SIGNED_STATE, host(-1, 4), "BAD"),
        (array(CHAR, 8), b"cron\0\0\0\0", "cron"),
        (array(CHAR, 8), b"cron\0old", "cron"),
        (array(CHAR, 4), b"full", "full"),
        (array(CHAR, 4), b"\0\0\0\0", ""),
        (array(CHAR, 4), b"a\xffb\0", "a\N{REPLACEMENT CHARACTER}b"),
        (array(CHAR, 4), b"a\xc3\0\0", "a\N{REPLACEMENT CHARACTER}"),
        (array(Type("int", "signed char", 1, signed=True), 4), b"ab\0\0", "ab"),
        (array(Type("int", "unsigned char", 1, encoding="char"), 4), b"ab\0\0", "ab"),
    ],
)
def test_without_decode_the_type_decides(field: Type, raw: bytes, text: str) -> None:
    assert decoded(field, raw) == text


@pytest.mark.parametrize(
    ("field", "raw", "decode", "text"),
    [
        (S32, host(-1, 4), step("uint"), "4294967295"),
        (S8, b"\x80", step("uint"), "128"),
        (U32, host(0xFFFFFFFF, 4), step("int"), "-1"),
        (U64, host(1 << 63, 8), step("int"), "-9223372036854775808"),
        (U16, host(0x7FFF, 2), step("int"), "32767"),
        (BE16, b"\x01\xbb", step("uint"), "443"),
        (STATE, host(1, 4), step("uint"), "1"),
        (BOOL, b"\x01", step("uint"), "1"),
        (U32, host(31, 4), step("hex"), "0x1f"),
        (S16, host(-1, 2), step("hex"), "0xffff"),
        (array(U8, 6), bytes([2, 0, 0, 0xAB, 0, 1]), step("hex"), "020000ab0001"),
        (array(CHAR, 2), b"a\0", step("hex"), "6100"),
        (IN6, bytes(16), step("hex"), "0" * 32),
        (U32, host(2, 4), step("bool"), "true"),
        (array(U8, 4), b"ab\0c", step("string"), "ab"),
        (U8, b"\x01", step("map", {0: "read", 1: "write"}), "write"),
        (U8, b"\x02", step("map", {0: "read", 1: "write"}), "unknown"),
        (U8, b"\x02", step("map", {0: "read"}, unknown="other"), "other"),
        (U8, b"\x02", step("map", {0: "read"}, unknown="keep"), "2"),
        (U8, b"\x02", step("map", {0: "read"}, unknown="drop"), None),
        (S32, host(-1, 4), step("map", {-1: "none"}), "none"),
        (U8, b"\x01", step("map", {1: 100}), "100"),
        (array(CHAR, 4), b"sshd", step("map", {"sshd": "ssh"}), "ssh"),
        (array(CHAR, 4), b"cron", step("map", {"sshd": "ssh"}, unknown="keep"), "cron"),
        (STATE, host(1, 4), step("map", {1: "working"}), "working"),
        (STATE, host(0, 4), step("enum", strip="ID"), "LE"),
        (S32, host(0, 4), step("errno"), "none"),
        (S32, host(-2, 4), step("errno"), "ENOENT"),
        (S32, host(2, 4), step("errno"), "ENOENT"),
        (U32, host(2, 4), step("errno"), "ENOENT"),
        (S64, host(-110, 8), step("errno"), "ETIMEDOUT"),
        (U32, host(0xFFFFFFFE, 4), step("errno"), "ENOENT"),
        (U64, host((1 << 64) - 11, 8), step("errno"), "EAGAIN"),
        (S32, host(-35, 4), step("errno"), "EDEADLK"),
        (S32, host(-95, 4), step("errno"), "EOPNOTSUPP"),
        (S32, host(-512, 4), step("errno"), "ERESTARTSYS"),
        (S32, host(-4095, 4), step("errno"), "unknown"),
        (S32, host(-(1 << 31), 4), step("errno"), "unknown"),
        (BE32, bytes([192, 0, 2, 1]), step("inet"), "192.0.2.1"),
        (U32, bytes([192, 0, 2, 1]), step("inet"), "192.0.2.1"),
        (array(U8, 4), bytes([255, 255, 255, 255]), step("inet"), "255.255.255.255"),
        (IN6, bytes(16), step("inet"), "::"),
        (IN6, bytes(15) + b"\x01", step("inet"), "::1"),
        (IN6, bytes.fromhex("20010db8000000000000000000000001"), step("inet"), "2001:db8::1"),
        (IN6, bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1]), step("inet"), "10.0.0.1"),
        (array(BE32, 4), bytes.fromhex("fe80" + "00" * 13 + "05"), step("inet"), "fe80::5"),
        (U8, b"\x06", step("proto"), "tcp"),
        (U8, b"\x11", step("proto"), "udp"),
        (U8, b"\x3a", step("proto"), "icmpv6"),
        (U16, host(262, 2), step("proto"), "mptcp"),
        (U8, b"\xc8", step("proto"), "unknown"),
        (U8, b"\xc8", step("proto", unknown="keep"), "200"),
        (U8, b"\x00", step("tcp_state"), "none"),
        (U8, b"\x01", step("tcp_state"), "established"),
        (S32, host(2, 4), step("tcp_state"), "syn_sent"),
        (U8, b"\x06", step("tcp_state"), "time_wait"),
        (U8, b"\x0a", step("tcp_state"), "listen"),
        (U8, b"\x0b", step("tcp_state"), "closing"),
        (U8, b"\x0c", step("tcp_state"), "new_syn_recv"),
        (U8, b"\x0d", step("tcp_state"), "bound_inactive"),
        (U8, b"\x0e", step("tcp_state"), "unknown"),
        (U16, host(0, 2), step("port_class"), "ephemeral"),
        (U16, host(22, 2), step("port_class"), "22"),
        (BE16, b"\x00\x16", step("port_class"), "22"),
        (U32, host(0, 4), step("ifname"), "none"),
        (U32, host(1, 4), step("ifname"), "lo"),
        (U32, host(0xFFFFFFFF, 4), step("ifname"), "unknown"),
        (S32, host(-1, 4), step("ifname"), "unknown"),
        (U64, host(0, 8), step("ksym"), "none"),
        (U64, host(1 << 63, 8), step("ksym"), "unknown"),
        (U64, host(12, 8), step("cgroup"), "unknown"),
        (U64, host(12, 8), step("cgroup", unknown="keep"), "12"),
        (U64, host(12, 8), step("cgroup", unknown="gone"), "gone"),
        (array(CHAR, 32), b"/system.slice/cron.service".ljust(32, b"\0"), step("systemd_unit"), "cron.service"),
        (array(CHAR, 8), b"kswapd0\0", step("regexp", ["^(kswapd)", "^systemd"]), "kswapd"),
        (array(CHAR, 16), b"systemd-journal\0", step("regexp", ["^(kswapd)", "^systemd"]), "systemd"),
        (array(CHAR, 8), b"bash\0\0\0\0", step("regexp", "^(kswapd)"), None),
        (array(CHAR, 8), b"bash\0\0\0\0", step("regexp", "^(kswapd)", unknown="other"), "other"),
        (array(CHAR, 8), b"bash\0\0\0\0", step("regexp", "^(kswapd)", unknown="keep"), "bash"),
        (array(CHAR, 8), b"bash\0\0\0\0", step("regexp", "^(x)?b"), "b"),
        (array(CHAR, 8), b"bash\0\0\0\0", step("regexp", "^()b"), ""),
        (BE32, bytes([10, 1, 2, 3]), step("cidr", 16), "10.1.0.0/16"),
        (BE32, bytes([10, 1, 2, 3]), step("cidr", 0), "0.0.0.0/0"),
        (IN6, bytes.fromhex("20010db8112233440000000000000001"), step("cidr", 24, v6=48), "2001:db8:1122::/48"),
        (IN6, bytes.fromhex("20010db8112233440000000000000001"), step("cidr", 24), "2001:db8:1122:3344::1/128"),
        (IN6, bytes(10) + b"\xff\xff" + bytes([10, 9, 8, 7]), step("cidr", 24, v6=48), "10.9.8.0/24"),
        (BE32, bytes([10, 1, 2, 3]), step("cidr", ["10.0.0.0/8", "10.1.0.0/16"]), "10.1.0.0/16"),
        (BE32, bytes([10, 2, 2, 3]), step("cidr", {"10.0.0.0/8": "internal", "0.0.0.0/0": "internet"}), "internal"),
        (BE32, bytes([11, 2, 2, 3]), step("cidr", {"10.0.0.0/8": "internal", "0.0.0.0/0": "internet"}), "internet"),
        (BE32, bytes([11, 2, 2, 3]), step("cidr", {"10.0.0.0/8": "internal"}), "unknown"),
        (IN6, bytes(15) + b"\1", step("cidr", {"0.0.0.0/0": "v4"}), "unknown"),
        (LPM4, host(8, 4) + bytes([10, 0, 0, 0]), step("cidr"), "10.0.0.0/8"),
        (LPM4, host(33, 4) + bytes([10, 0, 0, 0]), step("cidr"), "unknown"),
        (LPM6, host(32, 4) + bytes.fromhex("20010db8") + bytes(12), step("cidr"), "2001:db8::/32"),
        (array(U8, 16), b"\7example\3COM\0xyz", step("dname"), "example.com"),
        (array(U8, 12), b"\7example\3com", step("dname"), "example.com"),
        (array(CHAR, 4), bytes(4), step("dname"), "."),
        (array(U8, 8), b"\3a.b\2\xffc\0", step("dname"), "a\\046b.\\255c"),
        (array(U8, 4), b"\5com", step("dname"), "unknown"),
        (array(U8, 4), b"\xc0\x0c\0\0", step("dname"), "unknown"),
        (array(U64, 3), bytes(24), step("kstack"), "unknown"),
        (array(U64, 3), host(1, 8) + host(2, 8) + bytes(8), step("kstack"), "??;??"),
        (S64, host(3, 8), step("kstack", "stacks"), "unknown"),
        (S64, host(-17, 8), step("kstack", "stacks"), "unknown"),
        (U32, host(0, 4), step("majorminor"), "none"),
        (U32, host(8 << 20 | 2, 4), step("majorminor"), "unknown"),
        (U32, host(0, 4), step("username"), "unknown"),
        (U16, host(0x8086, 2), step("pci_vendor"), "0x8086"),
        (U32, host(0x80861000, 4), step("pci_device"), "0x80861000"),
        (U8, host(2, 1), step("pci_class"), "0x02"),
        (U16, host(0x200, 2), step("pci_subclass"), "0x0200"),
        (U32, host(0x10000, 4), step("pci_vendor"), "unknown"),
        (S32, host(-1, 4), step("pci_class"), "unknown"),
        (array(CHAR, 8), b"/a/b\0\0\0\0", step("pod"), "none"),
    ],
)
def test_decoder(field: Type, raw: bytes, decode: DecodeStep, text: str | None) -> None:
    assert decoded(field, raw, decode) == text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "none"),
        ("", "none"),
        ("/init.scope", "init.scope"),
        ("/system.slice", "none"),
        ("/system.slice/cron.service", "cron.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/cron.service/inner", "cron.service"),
        ("/system.slice/dbus.socket", "dbus.socket"),
        ("/system.slice/run-user-1000.mount", "run-user-1000.mount"),
        ("/system.slice/_cgroup.service", "cgroup.service"),
        ("/system.slice/systemd-cryptsetup@dev\\x2dsda.service", "systemd-cryptsetup@dev\\x2dsda.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/vim.service", "user@1000.service"),
        ("/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service", "systemd-nspawn@web.service"),
        (f"/system.slice/docker-{'a' * 64}.scope", f"docker-{'a' * 64}.scope"),
        (f"/docker/{'a' * 64}", "none"),
        ("/docker/x/system.slice/cron.service", "none"),
        ("/.service", "none"),
        ("/weird name.service", "none"),
    ],
)
def test_unit_of_a_cgroup_path(path: str, name: str) -> None:
    assert unit(path) == name


ID = "0123456789abcdef" * 4
OUTER = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/", "none"),
        ("/system.slice/docker.service", "none"),
        (f"/docker/{ID}", ID[:12]),
        (f"/system.slice/docker-{ID}.scope", ID[:12]),
        (f"/system.slice/docker-{ID}.scope/init", ID[:12]),
        (f"/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:{ID}", ID[:12]),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-{ID}.scope", ID[:12]),
        (f"/kubepods/burstable/pod8f1c5d3e-7b1e-4f7e-9a55-9d9a1b2c3d4e/{ID}", ID[:12]),
        (f"/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope", ID[:12]),
        (f"/kubepods/besteffort/pod1/crio-{ID}", ID[:12]),
        (f"/kubepods.slice/kubepods-pod1.slice/crio-conmon-{ID}.scope", "none"),
        (f"/machine.slice/libpod-{ID}.scope", ID[:12]),
        (f"/machine.slice/libpod-{ID}.scope/container", ID[:12]),
        (f"/machine.slice/libpod-payload-{ID}", ID[:12]),
        (f"/machine.slice/libpod-conmon-{ID}.scope", "none"),
        (f"/libpod_parent/libpod-{ID}", ID[:12]),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", ID[:12]),
        (f"/default/{ID}", ID[:12]),
        (f"/system.slice/nerdctl-{ID}.scope", ID[:12]),
        (f"/docker/{OUTER}/docker/{ID}", ID[:12]),
        (f"/docker/{ID[:63]}", "none"),
        (f"/docker/{ID}0", "none"),
        (f"/docker/{ID.upper()}", "none"),
    ],
)
def test_container_of_a_cgroup_path(path: str, short: str) -> None:
    assert container(path) == short


# Each decoder that may have no answer: a field, its bytes, the step, and what the field is by itself. On a host without
# names. Bytes are shown in hex.
NO_ANSWER: dict[str, tuple[Type, bytes, DecodeStep, str]] = {
    "cgroup": (U64, host(12, 8), step("cgroup"), "12"),
    "cidr": (array(U8, 4), bytes((192, 0, 2, 1)), step("cidr", {"10.0.0.0/8": "internal"}), "c0000201"),
    "dname": (array(CHAR, 8), b"\x09abc\0\0\0\0", step("dname"), "0961626300000000"),
    "enum": (U32, host(7, 4), step("enum", "nobody"), "7"),
    "errno": (S32, host(-9999, 4), step("errno"), "-9999"),
    "ifname": (U32, host(999_999, 4), step("ifname"), "999999"),
    "kstack": (array(U64, 2), host(0, 8) * 2, step("kstack"), "00" * 16),
    "ksym": (POINTER, host(0x1000, 8), step("ksym"), "4096"),
    "majorminor": (U32, host(8 << 20 | 1, 4), step("majorminor"), "8388609"),
    "map": (U8, b"\x09", step("map", {0: "read"}), "9"),
    "pod": (array(CHAR, 128), f"/kubepods/pod{'0a' * 16}".encode(), step("pod"), f"/kubepods/pod{'0a' * 16}"),
    "proto": (U16, host(9999, 2), step("proto"), "9999"),
    "regexp": (array(CHAR, 8), b"bash\0\0\0\0", step("regexp", ["^kswapd"]), "bash"),
    "syscall": (U32, host(99_999, 4), step("syscall"), "99999"),
    "tcp_state": (U32, host(99, 4), step("tcp_state"), "99"),
    "username": (U32, host(4_000_000, 4), step("username"), "4000000"),
    "pci_class": (S32, host(-1, 4), step("pci_class"), "-1"),
    "pci_device": (S64, host(-1, 8), step("pci_device"), "-1"),
    "pci_subclass": (S32, host(-1, 4), step("pci_subclass"), "-1"),
    "pci_vendor": (S32, host(-1, 4), step("pci_vendor"), "-1"),
}


def test_every_decoder_that_may_have_no_answer_is_tested_for_what_it_says_then() -> None:
    assert set(NO_ANSWER) == {name for name, decoder in all_decoders().items() if decoder.unknown is not None}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_no_answer_is_kept_dropped_or_a_text(name: str) -> None:
    field, raw, decode, itself = NO_ANSWER[name]

    def of(unknown: str | None) -> str | None:
        return decoded(field, raw, decode.model_copy(update={"unknown": unknown}))

    assert of("keep") == itself
    assert of("drop") is None
    assert of("nobody knows") == "nobody knows"
    assert of(None) == (None if all_decoders()[name].unknown == "drop" else all_decoders()[name].unknown)


def test_no_answer_ends_the_chain() -> None:
    """The unit of an unknown cgroup is unknown, not "none"."""
    steps = step("cgroup"), step("systemd_unit")
    assert decoded(U64, host(12, 8), *steps) == "unknown"


def test_later_steps_read_what_earlier_ones_give() -> None:
    steps = step("uint"), step("map", {1: "SIGHUP"}), step("map", {"SIGHUP": "hangup"})
    assert decoded(S32, host(1, 4), *steps) == "hangup"


def test_missing_and_dropped_answers_are_counted_by_decoder() -> None:
    names = Names.empty()
    decoded(U64, host(12, 8), step("cgroup"), names=names)
    decoded(U64, host(12, 8), step("cgroup"), step("container"), names=names)
    decoded(U8, b"\x09", step("map", {0: "read"}, unknown="drop"), names=names)
    assert names.errors == {"cgroup": 2, "map": 1}


def test_text_that_is_cut_or_no_utf8_is_counted() -> None:
    names = Names.empty()
    decode = chain(array(CHAR, 6), [step("string")]).bind(names, 4)
    assert [decode(b"abcd\0\0"), dict(names.errors)] == ["abcd", {}]
    assert [decode(b"abcde\0"), dict(names.errors)] == ["abcd", {"string": 1}]
    assert [decode(b"a\xff\0\0\0\0"), dict(names.errors)] == ["a\N{REPLACEMENT CHARACTER}", {"string": 2}]


def test_answers_that_the_author_foresaw_are_no_errors() -> None:
    names = Names.empty()
    decoded(U8, b"\x09", step("map", {0: "read"}, unknown="other"), names=names)
    decoded(U8, b"\x09", step("map", {0: "read"}, unknown="keep"), names=names)
    assert not names.errors


def test_each_program_counts_its_own_errors_from_0_on() -> None:
    def program(*steps: DecodeStep) -> ProgramSpec:
        label = LabelSpec(name="x", field="x", decode=list(steps))
        metric = MetricSpec(name="m", type="gauge", help="", map="m", labels=[label])
        return ProgramSpec(name="p", variants=[], metrics=[metric], source=Path("x.c"), text="")

    names = Names.empty()
    one, other = (
        names.counting_apart(program(step("cgroup"), step("map", {}, unknown="keep"))),
        names.counting_apart(program()),
    )
    assert dict(one.errors) == {"cgroup": 0}
    decoded(U64, host(12, 8), step("cgroup"), names=one)
    assert (one.errors, other.errors, names.errors) == ({"cgroup": 1}, {}, {})


@pytest.mark.parametrize(
    ("raw", "length", "text"),
    [
        (b"abcdef", 6, "abcdef"),
        (b"abcdef", 5, "abcde"),
        ("aßc".encode(), 3, "aß"),
        ("aßc".encode(), 2, "a"),
        ("ab€".encode(), 4, "ab"),
    ],
)
def test_long_text_is_cut_at_a_character(raw: bytes, length: int, text: str) -> None:
    field = array(CHAR, len(raw))
    assert chain(field, None).bind(Names.empty(), length)(raw) == text


def test_only_names_that_can_change_are_volatile() -> None:
    volatile = {name for name, decoder in all_decoders().items() if decoder.volatile}
    assert volatile == {"cgroup", "ifname", "kstack", "ksym", "majorminor", "pod", "username"}
    assert chain(U64, [step("cgroup"), step("container")]).volatile
    assert not chain(U64, [step("uint")]).volatile


_ARGUMENTS: dict[str, Any] = {
    "map": {1: "one"},
    "enum": "skb_drop_reason",
    "cidr": 20,
    "regexp": ["^(a)", "(b)|c", ".*"],
}
_FIELDS = [U8, S8, U16, BE16, S32, U32, BE32, U64, S64, BOOL, POINTER, STATE, array(CHAR, 5), array(U8, 16), IN6]
_FIELDS += [array(U64, 2)]


@given(st.sampled_from(_FIELDS), st.sampled_from(sorted(all_decoders())), st.binary(max_size=24))
def test_no_bytes_make_a_decoder_raise(field: Type, name: str, raw: bytes) -> None:
    """Also not bytes of another length than the type's: every answer is text that UTF-8 can hold."""
    try:
        made = chain(field, [step(name, _ARGUMENTS.get(name))])
    except ValueError:
        return  # the type does not fit, which the configuration is told
    text = made.bind(Names.empty(), 10)(raw)
    if text is None:
        assert name == "regexp"  # which drops what it does not know
    else:
        assert len(text.encode()) <= 10


def test_wide_enum_values_beyond_the_names_are_unknown() -> None:
    assert decoded(S32, host(5, 4), step("enum", "skb_drop_reason")) == "unknown"  # no BTF at all
