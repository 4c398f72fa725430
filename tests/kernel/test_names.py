"""Names of this host: its kallsyms, its cgroups, its interfaces, its BTF."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.decoders import Names, chain
from exporter.kernel import bpf, cgroups, links
from exporter.program import Type
from exporter.spec import DecodeStep

U64 = Type("int", "u64", 8)
U32 = Type("int", "u32", 4)
ROOT = Path(__file__).parents[2]
CODE = frozenset("tTwW")


@pytest.fixture
def names() -> Iterator[Names]:
    opened = Names.open()
    yield opened
    opened.close()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of our own, at the top of the tree; gone afterwards."""
    mount = cgroups.find_mount(Path("/proc"))
    assert mount is not None, "no cgroup2 mounted"
    path = mount / f"bpf-exporter-test-{os.getpid()}.service"
    path.mkdir()
    yield path
    if path.exists():
        path.rmdir()


def functions() -> dict[int, set[str]]:
    """Address -> its names, read plainly; without modules and BPF programs, which come and go."""
    found: dict[int, set[str]] = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        address, kind, name = line.split(" ", 2)
        if kind in CODE and "\t" not in name:
            found.setdefault(int(address, 16), set()).add(name)
    return found


def test_every_hundredth_function_is_found_at_its_start_and_inside(names: Names) -> None:
    known = functions()
    starts = sorted(known)
    sample = random.Random(7).sample(range(len(starts) - 1), len(starts) // 100)
    for place in sample:
        start, after = starts[place], starts[place + 1]
        assert names.symbols.name(start) in known[start]
        assert names.symbols.name(min(after - 1, start + 4096)) in known[start]


def test_tcp_sendmsg_is_found_by_its_address(names: Names) -> None:
    address = next(address for address, names_there in functions().items() if "tcp_sendmsg" in names_there)
    decode = chain(U64, [DecodeStep(name="ksym")]).bind(names)
    assert decode((address + 1).to_bytes(8, sys.byteorder)) == "tcp_sendmsg"


def test_symbols_of_the_whole_kernel_stay_small(names: Names) -> None:
    known = functions()
    names.symbols.name(next(iter(known)))
    table = names.symbols
    size = (
        len(table._names) + table._starts.itemsize * len(table._starts) + table._offsets.itemsize * len(table._offsets)
    )
    assert len(table._starts) >= len(known)
    assert size < 48 * len(known)


def test_file_handle_of_a_cgroup_is_its_inode(cgroup: Path) -> None:
    """Why inodes of the tree are ids: kernfs puts the 64-bit id of the cgroup into both."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 8, 0) + bytes(8), 16)
    mount_id = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.name_to_handle_at(-100, os.fsencode(cgroup), handle, ctypes.byref(mount_id), 0)
    assert result == 0, os.strerror(ctypes.get_errno())
    assert struct.unpack_from("Q", handle.raw, 8)[0] == cgroup.stat().st_ino


def test_cgroup_is_named_and_its_name_outlives_it(names: Names, cgroup: Path) -> None:
    number = cgroup.stat().st_ino
    raw = number.to_bytes(8, sys.byteorder)
    path = chain(U64, [DecodeStep(name="cgroup")]).bind(names)
    unit = chain(U64, [DecodeStep(name="cgroup"), DecodeStep(name="systemd_unit")]).bind(names)
    assert path(raw) == f"/{cgroup.name}"
    cgroup.rmdir()
    assert unit(raw) == cgroup.name
    assert Names.open().cgroup_path(number) is None  # who never saw it cannot name it
    assert not names.errors


def assembled(map_fd: int, pid: int) -> bytes:
    """raw_tracepoint program: *(u64 *)map[0] = bpf_get_current_cgroup_id(), in the process `pid` alone."""
    helper_map_lookup, helper_pid_tgid, helper_cgroup_id = 1, 14, 80
    instructions = [
        (0x85, 0, 0, helper_pid_tgid),
        (0x77, 0x00, 0, 32),  # r0 >>= 32
        (0x55, 0x00, 10, pid),  # if r0 != pid goto exit
        (0x62, 0x0A, -4, 0),  # *(u32 *)(r10 - 4) = 0
        (0x18, 0x11, 0, map_fd),  # r1 = map
        (0, 0, 0, 0),
        (0xBF, 0xA2, 0, 0),  # r2 = r10
        (0x07, 0x02, 0, -4),  # r2 += -4
        (0x85, 0, 0, helper_map_lookup),
        (0x15, 0x00, 3, 0),  # if r0 == NULL goto exit
        (0xBF, 0x06, 0, 0),  # r6 = r0
        (0x85, 0, 0, helper_cgroup_id),
        (0x7B, 0x06, 0, 0),  # *(u64 *)r6 = r0
        (0xB7, 0x00, 0, 0),  # exit: r0 = 0
        (0x95, 0, 0, 0),
    ]
    return b"".join(struct.pack("<BBhi", *instruction) for instruction in instructions)


def test_id_that_a_program_sees_names_the_cgroup_of_the_process(names: Names, cgroup: Path) -> None:
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    fds: list[int] = []
    try:
        (cgroup / "cgroup.procs").write_text(str(child.pid))
        fds.append(bpf.map_create(2, 4, 8, 1, name="cgroup_id"))  # BPF_MAP_TYPE_ARRAY
        fds.append(bpf.prog_load(17, assembled(fds[0], child.pid), "GPL", "cgroup_id"))  # BPF_PROG_TYPE_RAW_TRACEPOINT
        fds.append(links.raw_tracepoint("sys_enter", fds[1]))
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("x\n")
        child.stdin.flush()
        assert child.stdout.readline() == "x\n"
        raw = bpf.map_lookup(fds[0], bytes(4), 8)
        assert raw is not None
        assert chain(U64, [DecodeStep(name="cgroup")]).bind(names)(raw) == f"/{cgroup.name}"
    finally:
        for fd in fds:
            os.close(fd)
        child.communicate()


def test_interface_is_named_by_its_index(names: Names) -> None:
    for index, name in socket.if_nameindex():
        assert names.interfaces.name(index) == name
    assert names.interfaces.name(1 << 20) is None


INTERFACES = """
import socket, subprocess
from exporter.kernel.interfaces import Interfaces
def ip(*words):
    subprocess.run(["ip", "link", *words], check=True)
names = Interfaces(most=2)
ip("add", "first", "type", "bridge")
index = socket.if_nametoindex("first")
print(names.name(index))
ip("set", "first", "name", "renamed")
print(names.name(index))
ip("delete", "renamed")
print(names.name(index))
for bridge in ("second", "third"):
    ip("add", bridge, "type", "bridge")
    print(names.name(socket.if_nametoindex(bridge)))
print(names.name(index))
"""


def test_interface_keeps_its_last_name_until_others_need_the_place() -> None:
    command = ["unshare", "--net", sys.executable, "-c", INTERFACES]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert shown == ["first", "renamed", "renamed", "second", "third", "None"]


def test_enum_of_the_kernel_gives_its_names(names: Names) -> None:
    state = chain(U32, [DecodeStep(name="enum", argument="bpf_map_type", options={"strip": "BPF_MAP_TYPE_"})]).bind(
        names
    )
    assert state((1).to_bytes(4, sys.byteorder)) == "HASH"
    assert state((60000).to_bytes(4, sys.byteorder)) == "unknown"
    assert names.errors == {"enum": 1}


def test_enum_that_the_kernel_does_not_have_is_none(names: Names) -> None:
    absent = chain(U32, [DecodeStep(name="enum", argument="no_such_enum")]).bind(names)
    assert absent((1).to_bytes(4, sys.byteorder)) == "none"
    assert not names.errors


def test_kernel_without_btf_has_unknown_enums(tmp_path: Path) -> None:
    names = Names.open(btf=tmp_path / "vmlinux")
    reason = chain(U32, [DecodeStep(name="enum", argument="skb_drop_reason")]).bind(names)
    assert reason((1).to_bytes(4, sys.byteorder)) == "unknown"
    assert names.errors == {"enum": 1}
