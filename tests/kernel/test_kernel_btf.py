"""The kernel's own BTF through libbpf, against what bpftool reads in it."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel.btf import BTF_KIND_STRUCT, VMLINUX, KernelBtf, file_sha256


@pytest.fixture(scope="module")
def btf() -> Iterator[KernelBtf]:
    with KernelBtf() as opened:
        yield opened


@pytest.fixture(scope="module")
def dump() -> str:
    """`bpftool btf dump`: "[id] KIND 'name' ..." with a tab before each member."""
    return subprocess.run(
        ["bpftool", "btf", "dump", "file", str(VMLINUX)], check=True, capture_output=True, text=True
    ).stdout


def written_by_bpftool(dump: str, kind: str, name: str) -> tuple[int, str, list[str]]:
    """(id, rest of the head, member lines) of the first type of that kind and name."""
    match = re.search(rf"^\[(\d+)\] {kind} '{name}'(.*)\n((?:\t.*\n)*)", dump, re.MULTILINE)
    assert match, f"bpftool knows no {kind} {name}"
    return int(match[1]), match[2], match[3].splitlines()


@pytest.mark.parametrize("name", ["sock_common", "tcphdr", "iphdr", "request_queue"])
def test_named_members_have_bpftools_offsets(btf: KernelBtf, dump: str, name: str) -> None:
    _, head, lines = written_by_bpftool(dump, "STRUCT", name)
    written = {
        match[1]: int(match[2])
        for line in lines
        if (match := re.match(r"\t'(\w+)' type_id=\d+ bits_offset=(\d+)", line)) and match[1] != "(anon)"
    }
    assert written
    members = {member.name: member for member in btf.struct_members(name)}
    assert {known: members[known].offset for known in written} == written
    assert f"size={btf.struct_size(name)} " in head + " "


def test_bit_fields_have_widths_and_no_size(btf: KernelBtf) -> None:
    members = {member.name: member for member in btf.struct_members("iphdr")}
    assert (members["ihl"].bits, members["version"].bits, members["tos"].bits) == (4, 4, 0)
    assert (members["ihl"].size, members["ihl"].offset, members["version"].offset) == (0, 0, 4)
    assert (members["saddr"].size, members["saddr"].offset) == (4, 96)


def test_members_of_anonymous_unions_belong_to_the_struct(btf: KernelBtf) -> None:
    members = {member.name: member for member in btf.struct_members("sock_common")}
    assert members["skc_addrpair"].offset == members["skc_daddr"].offset == 0
    assert members["skc_rcv_saddr"].offset == 32
    assert members["skc_net"].holds in ("", "struct possible_net_t")  # an anonymous struct behind a typedef
    assert {member.name for member in btf.struct_members("struct iphdr")} >= {"saddr", "daddr", "addrs"}


def test_what_members_hold_and_point_to(btf: KernelBtf) -> None:
    members = {member.name: member for member in btf.struct_members("struct sock")}
    assert (members["__sk_common"].holds, members["__sk_common"].points) == ("struct sock_common", "")
    assert (members["sk_socket"].holds, members["sk_socket"].points) == ("", "struct socket")
    assert (members["sk_err"].holds, members["sk_err"].points, members["sk_err"].size) == ("", "", 4)


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("request_queue.disk", True),
        ("sock", True),
        ("union bpf_attr", True),
        ("sock_common.skc_daddr", True),
        ("sock.__sk_common.skc_state", True),
        ("sock.sk_socket.file", True),
        ("sock_common.skc_net.net", True),
        ("sock.sk_state", False),
        ("sock.__sk_common.nope", False),
        ("sock.sk_err.nope", False),
        ("nope", False),
        ("nope.nope", False),
        ("", False),
        ("sock.", False),
    ],
)
def test_a_member_is_asked_for_by_its_path(btf: KernelBtf, path: str, there: bool) -> None:
    assert btf.has_member(path) is there


def test_functions_and_types_have_bpftools_ids(btf: KernelBtf, dump: str) -> None:
    assert btf.function_id("tcp_sendmsg") == written_by_bpftool(dump, "FUNC", "tcp_sendmsg")[0]
    assert btf.find("sock", BTF_KIND_STRUCT) == written_by_bpftool(dump, "STRUCT", "sock")[0]
    assert btf.function_id("no_such_function") == 0


def test_enums_have_bpftools_names(btf: KernelBtf, dump: str) -> None:
    for name in ("bpf_map_type", "skb_drop_reason"):
        _, _, lines = written_by_bpftool(dump, "ENUM", name)
        values = [(match[1], int(match[2])) for line in lines if (match := re.match(r"\t'(\w+)' val=(-?\d+)", line))]
        assert len(values) > 20
        expected: dict[int, str] = {}
        for text, value in values:
            expected.setdefault(value, text)  # several names may have one value: the first stays
        assert btf.enum_values(name) == expected
    assert btf.enum_values("no_such_enum") == {}


def test_negative_and_64_bit_enumerators(btf: KernelBtf, dump: str) -> None:
    wide = re.search(r"^\[\d+\] ENUM64 '(\w+)'.*\n\t'(\w+)' val=(-?\d+)", dump, re.MULTILINE)
    assert wide, "this kernel has no ENUM64 with a name"
    assert btf.enum_values(wide[1])[int(wide[3])]
    negative = re.search(r"^\[\d+\] ENUM '(\w+)' .*\n(?:\t.*\n)*?\t'(\w+)' val=(-\d+)", dump, re.MULTILINE)
    assert negative, "this kernel has no negative enumerator"
    assert btf.enum_values(negative[1])[int(negative[3])]


def test_all_types_are_written_as_c(btf: KernelBtf, tmp_path: Path) -> None:
    btf.dump_c(tmp_path / "vmlinux.h")
    text = (tmp_path / "vmlinux.h").read_text()
    assert "\nstruct sock_common {\n" in text
    assert text.rstrip().endswith(";")
    with pytest.raises(OSError, match=r"write /nonexistent/vmlinux\.h: No such file or directory"):
        btf.dump_c("/nonexistent/vmlinux.h")
    with pytest.raises(OSError, match="No space left on device"):
        btf.dump_c("/dev/full")


def test_the_digest_is_the_files() -> None:
    assert file_sha256() == hashlib.sha256(VMLINUX.read_bytes()).hexdigest()
    with KernelBtf() as btf:
        assert btf.sha256 == file_sha256()


def test_what_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"read BTF {tmp_path}/none: No such file or directory"):
        KernelBtf(tmp_path / "none")
    (tmp_path / "text").write_text("not BTF at all, just a line of text")
    with pytest.raises(OSError, match=f"read BTF {tmp_path}/text: not a BTF file"):
        KernelBtf(tmp_path / "text")


def test_a_struct_that_does_not_exist_is_a_key_error(btf: KernelBtf) -> None:
    with pytest.raises(KeyError, match="struct nope: not in the BTF"):
        btf.struct_size("struct nope")
