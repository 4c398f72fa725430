from __future__ import annotations

from pathlib import Path

import pytest

from exporter.kernel.features import Kernel, version
from exporter.loading.requires import matches, unmet
from exporter.spec import Requirements


@pytest.mark.parametrize(
    ("expression", "release", "holds"),
    [
        (">=5.10", "5.10.0-32-amd64", True),
        (">=5.10", "5.9.16", False),
        (">=5.10", "6.1.0", True),
        (">=5.10", "5.4.0", False),
        ("<5.11", "5.10.223", True),
        ("<5.11", "5.11.0", False),
        ("<=6.1", "6.1.50", True),
        (">6.1", "6.1.50", False),
        (">6.1", "6.2.0", True),
        ("==6.1", "6.1.50", True),
        ("==6.1.50", "6.1.51", False),
        (">=6.1.5", "6.1", False),
        (">=7", "7.2.12+deb13-amd64", True),
        (">=5.10, <6.1", "5.15.0", True),
        (">=5.10,<6.1", "6.1.0", False),
        ("  >= 5.10 , < 6.1 ", "5.10.1", True),
    ],
)
def test_kernel_expression(expression: str, release: str, holds: bool) -> None:
    assert matches(expression, version(release)) is holds


@pytest.mark.parametrize("expression", ["5.10", "=>5.10", ">=five", "", ">=5.10,", ">=5.10 <6.1", ">=5.10-rc1"])
def test_expression_that_is_no_comparison_is_refused_with_one_that_is(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is no comparison \(write >=5.10, or >=5.10, <6.1\)"):
        matches(expression, (6, 1))


def test_nothing_required_is_nothing_unmet() -> None:
    assert unmet(Requirements(), Kernel(release="6.1.0")) == []


def test_every_unmet_demand_is_named(tmp_path: Path) -> None:
    demands = Requirements(kernel=">=6.10", member=["sock.sk_state"], tracepoint_field=["tcp:tcp_send_reset.reason"])
    bare = Kernel(proc=tmp_path, sysfs=tmp_path, release="6.1.0-56-amd64")
    assert unmet(demands, bare) == [
        "kernel >=6.10 (this one is 6.1.0-56-amd64)",
        "member sock.sk_state (this kernel has no BTF to ask)",
        "tracepoint_field tcp:tcp_send_reset.reason "
        "(tracefs is not mounted, and BTF has no struct trace_event_raw_tcp_send_reset with it)",
    ]


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel whose tcp:tcp_send_reset is that of 6.1: without a reason."""
    event = tmp_path / "kernel/tracing/events/tcp/tcp_send_reset"
    event.mkdir(parents=True)
    (event / "id").write_text("1563\n")
    (event / "format").write_text(
        "name: tcp_send_reset\nID: 1563\nformat:\n"
        "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n"
        "\tfield:const void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n"
        "\tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;\n\n"
        'print fmt: "skbaddr=%p", REC->skbaddr\n'
    )
    return Kernel(proc=tmp_path, sysfs=tmp_path, release="6.1.0")


def test_field_that_a_tracepoint_has_is_met(kernel: Kernel) -> None:
    assert (
        unmet(Requirements(tracepoint_field=["tcp:tcp_send_reset.saddr", "tcp:tcp_send_reset.skbaddr"]), kernel) == []
    )


def test_field_that_a_tracepoint_lacks_is_answered_with_those_it_has(kernel: Kernel) -> None:
    assert unmet(Requirements(tracepoint_field=["tcp:tcp_send_reset.reason"]), kernel) == [
        "tracepoint_field tcp:tcp_send_reset.reason (its fields: skbaddr, saddr)"
    ]


def test_field_of_a_tracepoint_that_is_not_there_is_unmet(kernel: Kernel) -> None:
    assert unmet(Requirements(tracepoint_field=["tcp:tcp_rst.reason"]), kernel) == [
        "tracepoint_field tcp:tcp_rst.reason (no such tracepoint)"
    ]


def test_architecture_is_one_of_those_named() -> None:
    assert unmet(Requirements(arch=["x86_64", "aarch64"]), Kernel(release="6.1.0", machine="aarch64")) == []
    assert unmet(Requirements(arch=["aarch64"]), Kernel(release="6.1.0", machine="x86_64")) == [
        "arch aarch64 (this machine is x86_64)"
    ]


def test_module_is_loaded_or_built_in(tmp_path: Path) -> None:
    (tmp_path / "module/nf_conntrack").mkdir(parents=True)
    (tmp_path / "6.1.0").mkdir()
    (tmp_path / "6.1.0/modules.builtin").write_text("kernel/fs/ext4/ext4.ko\nkernel/net/8021q/8021q-x.ko\n")
    (tmp_path / "filesystems").write_text("nodev\tproc\n\txfs\n")
    (tmp_path / "kallsyms").write_text("0 t veth_init\n0 t other_init\t[other]\n")
    host = Kernel(proc=tmp_path, sysfs=tmp_path, modules=tmp_path, release="6.1.0")
    assert unmet(Requirements(module=["nf_conntrack", "ext4", "8021q_x", "xfs", "veth"]), host) == []
    assert unmet(Requirements(module=["btrfs", "other"]), host) == [
        "module btrfs (neither loaded nor built in: modprobe btrfs, before the exporter starts)",
        "module other (neither loaded nor built in: modprobe other, before the exporter starts)",
    ]
