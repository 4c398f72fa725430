"""What each kernel of the matrix does for the exporter, whatever the program: attach kinds, map kinds, rights."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.matrix import architecture
from tests.matrix.examine import Examined
from tests.matrix.guest import attaching, maps
from tests.matrix.guest.__main__ import KINDS
from tests.matrix.kernels import NO_TRAMPOLINES, TESTED

Matrix = Callable[[str], Examined]
MAPS = ("of_array", "of_percpu_array", "of_hash", "of_percpu_hash", "of_lru_hash", "of_lru_percpu_hash")

pytestmark = pytest.mark.parametrize("series", TESTED)


def test_kernel_boots_and_every_check_runs(on: Matrix, series: str) -> None:
    examined = on(series)
    assert not examined.failure, f"linux {series}: {examined.failure}"
    assert examined.value("facts")["release"].startswith(f"{architecture.of(series)[1]}.")


def test_nothing_on_that_kernel_imports_bcc(on: Matrix, series: str) -> None:
    assert on(series).value("facts")["bcc"] is False


@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_attach_point_counts_each_event_once(on: Matrix, series: str, kind: str) -> None:
    if series in NO_TRAMPOLINES and kind in ("fentry", "fexit"):
        assert "not supported by this kernel (ENOTSUPP)" in on(series).steps[f"kind/{kind}"].error
        return
    sends = kind in ("kprobe", "kretprobe", "fentry", "fexit")
    amount = attaching.EVENTS * (attaching.BYTES if sends else attaching.NR_GETPPID[architecture.of(series)[0].machine])
    assert on(series).value(f"kind/{kind}") == {"calls": attaching.EVENTS, "amount": amount}


def test_killed_holder_leaves_no_kprobe_and_never_wrote_kprobe_events(on: Matrix, series: str) -> None:
    seen = on(series).value("left_after_kill")
    assert seen["held"]
    assert any("tcp_sendmsg" in line for line in seen["during"]["kprobes"])
    assert not seen["during"]["kprobe_events"]
    assert seen["after"] == seen["before"] == {"kprobe_events": [], "kprobes": []}


@pytest.mark.parametrize("name", MAPS)
def test_kind_of_map_is_read_back_to_the_unit(on: Matrix, series: str, name: str) -> None:
    read = on(series).value("map_kinds")[name]
    assert not read["wrong"]
    assert read["calls"] == maps.CALLS


def test_only_per_cpu_arrays_of_old_kernels_lack_batch_reads(on: Matrix, series: str) -> None:
    refused = {name: errno for name, read in on(series).value("map_kinds").items() if (errno := read["batch"])}
    # Per-CPU arrays got it in 5.13 (f008d732ab18); without it the exporter looks up index after index.
    assert refused == ({"of_percpu_array": "524"} if series == "5.10" else {})


@pytest.mark.parametrize("name", maps.KINDS)
def test_a_large_map_gives_each_key_once_in_every_read(on: Matrix, series: str, name: str) -> None:
    assert not on(series).value("large_maps")[name]["wrong"]


def test_nobody_reads_maps_with_no_capability_from_5_19_on(on: Matrix, series: str) -> None:
    read = on(series).value("rights/none")
    assert read["effective"] == []
    assert set(read["uids"]) == {65534}
    assert read["unprivileged_bpf_disabled"] == "2"
    assert read["as_root"] == attaching.EVENTS
    if series == "5.10":
        assert "Operation not permitted" in read["error"]
    else:
        assert read["dropped"] == 2 * attaching.EVENTS
        assert not read["written"]


def test_nobody_with_cap_bpf_alone_reads_maps_everywhere_and_writes_none(on: Matrix, series: str) -> None:
    read = on(series).value("rights/cap_bpf")
    assert read["effective"] == [39]
    assert read["dropped"] == 2 * attaching.EVENTS
    assert not read["error"]
    assert not read["written"]


def test_exporter_runs_without_bcc_from_artifacts_made_elsewhere_and_maps_no_compiler(on: Matrix, series: str) -> None:
    seen = on(series).value("daemon")
    configured = {name.partition("/")[0] for name in on(series).compiled}
    assert set(seen["running"]) == configured > {"tcp_latency", "tcp_rst", "tcp_sendmsg"}, seen["log"]
    first = "tracepoint" if series in ("6.12", "7.2", "arm64-6.12") else "fentry"
    assert seen["variants"] == ["kprobe" if series in NO_TRAMPOLINES else first]
    assert seen["calls"] >= attaching.EVENTS
    assert (seen["compiled"], seen["llvm"]) == (0, [])


def test_exporters_server_has_no_capability_or_cap_bpf_alone_before_5_19(on: Matrix, series: str) -> None:
    seen = on(series).value("daemon")
    effective = [39] if series == "5.10" else []
    assert seen["rights"] == {"effective": effective, "uids": [65534] * 4, "no_new_privs": True}
    assert seen["unprivileged"] == (0 if effective else 1)


def test_killed_exporter_leaves_nothing_attached_and_no_server(on: Matrix, series: str) -> None:
    seen = on(series).value("daemon")
    assert any("tcp_sendmsg" in line for line in seen["probes"]["kprobes"])
    assert not seen["probes"]["kprobe_events"]
    assert seen["left"] == {"kprobe_events": [], "kprobes": []}
    assert not seen["server_alive"]
