from __future__ import annotations

from pathlib import Path

import pytest

from exporter.kernel import cpus, perf_event, rights
from exporter.kernel.features import Kernel, parse_format, version
from exporter.kernel.near import near


def test_cpu_list_may_have_ranges_and_holes() -> None:
    assert cpus.parse("0-3,8,10-11\n") == [0, 1, 2, 3, 8, 10, 11]
    assert cpus.parse("0\n") == [0]
    assert cpus.parse("\n") == []


def test_cpu_list_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        cpus.parse("none")


def test_possible_counts_and_online_lists(tmp_path: Path) -> None:
    directory = tmp_path / "devices/system/cpu"
    directory.mkdir(parents=True)
    (directory / "possible").write_text("0-2,5\n")
    (directory / "online").write_text("1-2\n")
    assert cpus.possible(tmp_path) == 4
    assert cpus.possible_numbers(tmp_path) == [0, 1, 2, 5]
    assert cpus.online(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    ("release", "numbers"),
    [
        ("6.1.0-56-amd64", (6, 1, 0)),
        ("6.12.117+deb12-amd64", (6, 12, 117)),
        ("7.2", (7, 2)),
        ("6.18.44-fc-v657", (6, 18, 44)),
    ],
)
def test_release_starts_with_its_version(release: str, numbers: tuple[int, ...]) -> None:
    assert version(release) == numbers


def test_release_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="'mainline' does not start with a version"):
        version("mainline")


def test_format_fields_have_their_names_whatever_their_type() -> None:
    assert parse_format(
        "\tfield:__data_loc char[] name;\toffset:8;\tsize:4;\tsigned:0;\n"
        "\tfield:__u8 saddr[28];\toffset:12;\tsize:28;\tsigned:0;\n"
        "\tfield:const void *skaddr;\toffset:40;\tsize:8;\tsigned:0;\n"
        "\tfield:enum sk_rst_reason reason;\toffset:48;\tsize:4;\tsigned:0;\n"
    ) == {"name": (8, 4), "saddr": (12, 28), "skaddr": (40, 8), "reason": (48, 4)}


def test_near_names_are_best_first_and_always_in_one_order() -> None:
    names = {"tcp_v6_send_reset", "tcp_v4_send_reset", "tcp_send_active_reset", "udp_sendmsg", "schedule"}
    assert near("tcp_send_reset", names) == ["tcp_v6_send_reset", "tcp_v4_send_reset", "tcp_send_active_reset"]
    assert near("nothing_like_it", names) == []


@pytest.fixture
def kallsyms(tmp_path: Path) -> Kernel:
    (tmp_path / "kallsyms").write_text(
        "0000000000000000 T tcp_sendmsg\n"
        "0000000000000000 t tcp_v4_send_reset\n"
        "0000000000000000 D tcp_prot\n"
        "0000000000000000 t xfs_file_fsync\t[xfs]\n"
    )
    return Kernel(proc=tmp_path, sysfs=tmp_path, release="6.1.0")


def test_functions_are_known_with_their_modules(kallsyms: Kernel) -> None:
    functions = set(kallsyms.functions())
    assert {("tcp_sendmsg", ""), ("xfs_file_fsync", "xfs")} <= functions
    assert "tcp_prot" not in {name for name, _ in functions}, "data is no function"


def test_near_functions_come_from_kallsyms(kallsyms: Kernel) -> None:
    assert kallsyms.near_functions("tcp_send_reset")[0] == "tcp_v4_send_reset"
    assert kallsyms.near_functions("tcp_sendmesg") == ["tcp_sendmsg"]


def test_without_tracefs_a_tracepoint_is_an_error_that_says_what_to_mount(kallsyms: Kernel) -> None:
    assert kallsyms.tracefs is None
    assert kallsyms.near_tracepoints("tcp:tcp_probe") == []
    with pytest.raises(PermissionError, match="mount -t tracefs tracefs /sys/kernel/tracing"):
        kallsyms.tracepoint_id("tcp", "tcp_probe")


def test_tracefs_is_found_under_debugfs_too(tmp_path: Path) -> None:
    (tmp_path / "kernel/debug/tracing/events").mkdir(parents=True)
    assert Kernel(sysfs=tmp_path).tracefs == tmp_path / "kernel/debug/tracing"


def test_kernel_without_kprobes_has_no_kprobe_pmu(tmp_path: Path) -> None:
    assert perf_event.kprobe_type(tmp_path) is None
    with pytest.raises(OSError, match="this kernel has no kprobe PMU"):
        perf_event.open_kprobe("tcp_sendmsg", at_return=False, sysfs=tmp_path)


def test_number_of_the_kprobe_pmu_is_read(tmp_path: Path) -> None:
    pmu = tmp_path / "bus/event_source/devices/kprobe"
    pmu.mkdir(parents=True)
    (pmu / "type").write_text("6\n")
    assert perf_event.kprobe_type(tmp_path) == 6


def test_lockdown_is_the_word_in_brackets(tmp_path: Path) -> None:
    assert rights.lockdown(tmp_path) == "none"
    (tmp_path / "kernel/security").mkdir(parents=True)
    (tmp_path / "kernel/security/lockdown").write_text("none integrity [confidentiality]\n")
    assert rights.lockdown(tmp_path) == "confidentiality"
