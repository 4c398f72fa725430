"""Decoders that ask the host, on roots made for the purpose: devices, users, pods, system calls, stacks."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.decoders import Names, chain
from exporter.decoders.cgroups import pod_uid
from exporter.kernel import syscalls
from exporter.kernel.devices import BlockDevices
from exporter.kernel.pci_ids import PciIds
from exporter.kernel.pods import Pods
from exporter.kernel.symbols import Symbols
from exporter.kernel.users import Users
from exporter.program import Type
from exporter.spec import DecodeStep

U16 = Type("int", "u16", 2)
U32 = Type("int", "u32", 4)
S64 = Type("int", "s64", 8, signed=True)
UID = "8f1c5d3e-7b1e-4f7e-9a55-9d9a1b2c3d4e"
SDA2 = 8 << 20 | 2


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def text(names: Names, number: int, name: str, field: Type = U32) -> str | None:
    raw = number.to_bytes(field.size, "little", signed=field.signed)
    return chain(field, [DecodeStep(name=name)]).bind(names)(raw)


def test_block_device_is_the_one_that_sysfs_links_to(tmp_path: Path) -> None:
    links = tmp_path / "dev/block"
    links.mkdir(parents=True)
    (links / "8:2").symlink_to("../../devices/pci0000:00/0000:00:02.0/virtio1/block/sda/sda2")
    (links / "259:1048575").symlink_to("../../devices/x/block/cciss!c0d0")
    names = replace(Names.empty(), devices=BlockDevices(tmp_path))
    assert text(names, SDA2, "majorminor") == "sda2"
    assert text(names, 259 << 20 | 0xFFFFF, "majorminor") == "cciss/c0d0"
    assert text(names, 8 << 20 | 3, "majorminor") == "unknown"


def test_block_device_keeps_its_name_when_it_is_gone_until_another_has_its_number(tmp_path: Path) -> None:
    link = tmp_path / "dev/block/8:2"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../devices/block/sda2")
    devices = BlockDevices(tmp_path, most=1)
    assert devices.name(SDA2) == "sda2"
    link.unlink()
    assert devices.name(SDA2) == "sda2"
    link.symlink_to("../../devices/block/sdz2")
    assert devices.name(SDA2) == "sdz2"
    (link.parent / "8:3").symlink_to("../../devices/block/sda3")
    assert devices.name(SDA2 + 1) == "sda3"
    link.unlink()
    assert devices.name(SDA2) is None  # the longest unused went


PCI_IDS = """\
# comment
0014  Loongson Technology LLC
\t7a00  Hyper Transport Bridge Controller
# found on some boards
\t7a02  APB Controller
\t\t0014 7a02  A subsystem
0018  Fn-Link
\t7a03  Of another vendor
C 02  Network controller
\t00  Ethernet controller
\t\t01  A programming interface
C 03  Display controller
"""


@pytest.mark.parametrize(
    ("decoder", "number", "expected"),
    [
        ("pci_vendor", 0x0014, "Loongson Technology LLC"),
        ("pci_vendor", 0x0015, "0x0015"),
        ("pci_device", 0x00147A00, "Hyper Transport Bridge Controller"),
        ("pci_device", 0x00147A02, "APB Controller"),
        ("pci_device", 0x00147A03, "0x00147a03"),
        ("pci_class", 2, "Network controller"),
        ("pci_class", 0x7F, "0x7f"),
        ("pci_subclass", 0x0200, "Ethernet controller"),
        ("pci_subclass", 0x0201, "0x0201"),
        ("pci_subclass", 0x0300, "0x0300"),
    ],
)
def test_pci_names_are_those_of_the_file_and_else_hex(tmp_path: Path, decoder: str, number: int, expected: str) -> None:
    (tmp_path / "usr/share/misc").mkdir(parents=True)
    (tmp_path / "usr/share/misc/pci.ids").write_text(PCI_IDS)
    assert text(replace(Names.empty(), pci=PciIds(tmp_path)), number, decoder) == expected


def test_users_are_read_again_when_the_file_changes(tmp_path: Path, clock: Clock) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nm\u00e4x:x:1000:1000::/:/bin/sh\n")
    names = replace(Names.empty(), users=Users(passwd, clock))
    assert [text(names, uid, "username") for uid in (0, 1000, 1001)] == ["root", "m\u00e4x", "unknown"]
    fresh = tmp_path / "passwd-"
    fresh.write_text("root:x:0:0::/root:/bin/sh\nnew:x:1001:1001::/:/bin/sh\n")
    fresh.rename(passwd)
    assert text(names, 1001, "username") == "unknown"  # looked at most once a second
    clock.now += 1
    assert [text(names, uid, "username") for uid in (0, 1000, 1001)] == ["root", "unknown", "new"]
    passwd.unlink()
    clock.now += 1
    assert text(names, 1001, "username") == "new"


@pytest.mark.parametrize(
    ("path", "uid"),
    [
        ("/", None),
        ("/system.slice/kubelet.service", None),
        (f"/kubepods/burstable/pod{UID}/{'a' * 64}", UID),
        (f"/kubepods/pod{UID}", UID),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice/"
            f"cri-containerd-{'a' * 64}.scope",
            UID,
        ),
        (f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{'a' * 64}.scope/container", UID),
        (f"/kubepods.slice/kubepods-burstable-pod{'0a' * 16}.slice", "0a" * 16),
        (
            f"/system.slice/containerd.service/kubepods-burstable-pod{UID.replace('-', '_')}.slice:cri-containerd:"
            + "a" * 64,
            UID,
        ),
        (f"/kubelet.slice/kubelet-kubepods.slice/pod{UID}", UID),  # kind
        ("/kubepods/burstable/pod1", None),
        (f"/machine.slice/libpod-{'a' * 64}.scope", None),
    ],
)
def test_uid_of_the_pod_in_a_cgroup_path(path: str, uid: str | None) -> None:
    assert pod_uid(path) == uid


def test_pod_is_named_by_the_directory_of_its_logs_also_after_it_is_gone(tmp_path: Path, clock: Clock) -> None:
    logs = tmp_path / "var/log/pods"
    logs.mkdir(parents=True)
    names = replace(Names.empty(), pods=Pods(tmp_path / "var/log/pods"))
    names.pods._clock = clock
    decode = chain(Type("array", "", 128, element=Type("int", "char", 1), count=128), [DecodeStep(name="pod")]).bind(
        names
    )
    path = f"/kubepods/pod{UID}".encode()
    assert decode(path) == "unknown"
    (logs / f"kube-system_coredns-7db6d8ff4d-x_{UID}").mkdir()
    (logs / "stray").mkdir()
    assert decode(path) == "unknown"  # one listing a second, whatever is asked
    clock.now += 1
    assert decode(path) == "kube-system/coredns-7db6d8ff4d-x"
    (logs / f"kube-system_coredns-7db6d8ff4d-x_{UID}").rmdir()
    clock.now += 100
    assert decode(path) == "kube-system/coredns-7db6d8ff4d-x"
    assert decode(b"/system.slice") == "none"
    names.close()


def test_pods_of_a_kubelet_that_comes_later_are_seen(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "var/log").mkdir(parents=True)
    pods = Pods(tmp_path / "var/log/pods")
    pods._clock = clock
    assert pods.name(UID) is None
    logs = tmp_path / "var/log/pods"
    (logs / f"default_web_{UID}").mkdir(parents=True)
    clock.now += 1
    assert pods.name(UID) == "default/web"
    (logs / f"default_web_{UID}").rmdir()
    logs.rmdir()
    (logs / f"default_again_{'0' * 32}").mkdir(parents=True)  # made anew: another directory
    clock.now += 1
    assert pods.name("0" * 32) == "default/again"
    pods.close()
    pods.close()


def test_pods_kept_are_bounded(tmp_path: Path, clock: Clock) -> None:
    logs = tmp_path / "var/log/pods"
    for number in range(9):
        (logs / f"default_web-{number}_{number:032x}").mkdir(parents=True)
    pods = Pods(logs, most=3)
    pods.name("none of these")
    assert len(pods._names) == 3
    pods.close()


@pytest.mark.parametrize(
    ("machine", "number", "name"),
    [
        ("x86_64", 0, "read"),
        ("x86_64", 231, "exit_group"),
        ("x86_64", 424, "pidfd_send_signal"),
        ("x86_64", 0x40000000, "read"),
        ("x86_64", 0x40000000 | 424, "pidfd_send_signal"),
        ("x86_64", 400, "unknown"),
        ("x86_64", 100_000, "unknown"),
        ("aarch64", 63, "read"),
        ("aarch64", 280, "bpf"),
        ("aarch64", 0x40000000 | 63, "unknown"),
        ("riscv64", 63, "unknown"),
    ],
)
def test_system_call_by_the_table_of_the_architecture(machine: str, number: int, name: str) -> None:
    assert text(replace(Names.empty(), machine=machine), number, "syscall") == name


def test_system_call_minus_one_is_unknown() -> None:
    """What sys_enter shows for a call that ptrace or seccomp has taken away."""
    assert text(replace(Names.empty(), machine="x86_64"), -1, "syscall", S64) == "unknown"


def test_table_of_system_calls_has_what_this_hosts_headers_have() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")  # libc6-dev
    if not header.exists():
        header = Path("/usr/include/asm-generic/unistd.h")
    machine = "x86_64" if "x86_64" in str(header) else "aarch64"
    there = {int(n): name for name, n in re.findall(r"^#define __NR_(\w+) (\d+)$", header.read_text(), re.MULTILINE)}
    assert len(there) > 300 or machine == "aarch64"
    known = syscalls.names(machine)
    assert {n: known.get(n) for n in there} == there


def symbols(tmp_path: Path) -> Symbols:
    (tmp_path / "kallsyms").write_text(
        "ffffffff81000000 T do_one\nffffffff81000100 T do_two\nffffffffc0000000 t mod_open\t[alpha]\n"
    )
    return Symbols(os.open(tmp_path / "kallsyms", os.O_RDONLY))


def frames(*addresses: int) -> bytes:
    return struct.pack("=5Q", *addresses, *[0] * (5 - len(addresses)))


def test_stack_is_read_by_its_id_and_named_function_by_function_modules_too(tmp_path: Path) -> None:
    stacks = {7: frames(0xFFFFFFFF81000142, 0xFFFFFFFFC0000010, 0x1000, 0xFFFFFFFF81000001), 8: frames()}
    names = replace(Names.empty(), symbols=symbols(tmp_path), stacks={"stacks": stacks.get})
    decode = chain(S64, [DecodeStep(name="kstack", argument="stacks")]).bind(names)
    assert decode((7).to_bytes(8, "little")) == "do_two;mod_open;??;do_one"
    assert decode((8).to_bytes(8, "little")) == "unknown"
    assert decode((9).to_bytes(8, "little")) == "unknown"
    assert decode((-17).to_bytes(8, "little", signed=True)) == "unknown"  # -EEXIST of get_stackid()
    assert names.errors == {"kstack": 3}


def test_stack_in_the_field_itself(tmp_path: Path) -> None:
    field = Type("array", "", 40, element=Type("int", "u64", 8), count=5)
    names = replace(Names.empty(), symbols=symbols(tmp_path))
    decode = chain(field, [DecodeStep(name="kstack")]).bind(names)
    assert decode(frames(0xFFFFFFFF81000000, 0xFFFFFFFF81000100)) == "do_one;do_two"
