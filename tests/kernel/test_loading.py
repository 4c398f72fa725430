"""Artifacts loaded into this kernel and attached, and what is left when they are closed: nothing."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.kernel import bpf, bpf_stats, btf_objects, perf_event
from exporter.kernel.features import Kernel
from exporter.loading import build
from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import Descriptors, Reason, State
from exporter.spec import AttachSpec, MapOptions
from tests.kernel.loaded import RAW, TP_BTF, TRACEPOINT, Load, calls, own_descriptors
from tests.kernel.programs import COUNT_GETPPID, compile_all, point, spec
from tests.waiting import until


def bpftool(*arguments: str) -> list[dict[str, object]]:
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


@contextmanager
def connection() -> Iterator[socket.socket]:
    """A TCP connection over the loopback whose other end takes what is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            yield client


@pytest.mark.parametrize("at", [RAW, TRACEPOINT, TP_BTF], ids=lambda at: at.kind)
def test_each_kind_counts_every_event(load: Load, at: AttachSpec) -> None:
    outcome, descriptors = load(spec(COUNT_GETPPID, [at]))
    assert outcome.state is State.RUNNING, outcome.text
    assert [a.attached for a in outcome.attachments] == [True]
    before = calls(descriptors)
    for _ in range(23):
        os.getppid()
    assert calls(descriptors) - before == 23


def test_three_points_of_one_program_count_side_by_side(load: Load) -> None:
    _, descriptors = load(spec(COUNT_GETPPID, [RAW, TRACEPOINT, TP_BTF]))
    assert sorted(descriptors.programs) == ["on_btf", "on_raw", "on_tracepoint"]
    before = calls(descriptors)
    for _ in range(23):
        os.getppid()
    assert calls(descriptors) - before == 69


def test_one_function_at_two_events_is_loaded_once(load: Load) -> None:
    both = AttachSpec(kind="raw_tracepoint", targets=["sys_enter", "sys_exit"], function="on_raw")
    outcome, descriptors = load(spec(COUNT_GETPPID, [both]))
    assert [a.target for a in outcome.attachments] == ["sys_enter", "sys_exit"]
    assert list(descriptors.programs) == ["on_raw"]
    assert len(descriptors.links) == 2


def test_one_function_at_two_typed_events_is_loaded_for_each(load: Load) -> None:
    both = AttachSpec(kind="tp_btf", targets=["sys_enter", "sys_exit"], function="on_btf")
    _, descriptors = load(spec(COUNT_GETPPID, [both]))
    assert sorted(descriptors.programs) == ["on_btf", "on_btf#2"]


def test_maps_are_what_the_c_text_declares(load: Load) -> None:
    text = """
    struct place { u32 cpu; u32 kind; };
    BPF_HASH(plain, struct place, u64, 64);
    BPF_PERCPU_HASH(by_cpu, struct place, u64, 65);
    BPF_ARRAY(slots, u64, 66);
    BPF_PERCPU_ARRAY(cpu_slots, u64, 67);
    BPF_TABLE("lru_hash", struct place, u64, recent, 68);
    BPF_TABLE("lru_percpu_hash", struct place, u64, cpu_recent, 69);
    BPF_STACK_TRACE(stacks, 128);
    int on_raw(struct bpf_raw_tracepoint_args *ctx) { return 0; }
    """
    outcome, descriptors = load(spec(text, [RAW]))
    assert outcome.state is State.RUNNING, outcome.text
    found = {name: bpf.map_info(fd) for name, fd in descriptors.maps.items()}
    assert {name: (i.type, i.key_size, i.value_size, i.max_entries) for name, i in found.items()} == {
        "plain": (bpf.BPF_MAP_TYPE_HASH, 8, 8, 64),
        "by_cpu": (bpf.BPF_MAP_TYPE_PERCPU_HASH, 8, 8, 65),
        "slots": (bpf.BPF_MAP_TYPE_ARRAY, 4, 8, 66),
        "cpu_slots": (bpf.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 67),
        "recent": (bpf.BPF_MAP_TYPE_LRU_HASH, 8, 8, 68),
        "cpu_recent": (bpf.BPF_MAP_TYPE_LRU_PERCPU_HASH, 8, 8, 69),
        "stacks": (bpf.BPF_MAP_TYPE_STACK_TRACE, 4, 127 * 8, 128),
    }
    assert all(info.btf_id for name, info in found.items() if name != "stacks"), "bpftool would show bytes, no fields"
    assert {info.name.decode() for info in found.values()} == set(found)


def test_maps_do_without_btf_that_the_kernel_refuses(shared_host: Host) -> None:
    program = spec(COUNT_GETPPID, [RAW], name="without_btf")
    compile_all(program, shared_host)
    compiled, from_cache = build.build(program, program.variants[0], shared_host)
    assert from_cache
    shared_host.cache.put(replace(compiled, btf=b"\x9f\xeb and no BTF"))
    outcome, descriptors = load_program(program, shared_host)
    try:
        assert outcome.state is State.RUNNING, outcome.text
        assert bpf.map_info(descriptors.maps["calls"]).btf_id == 0
        os.getppid()
        assert calls(descriptors) == 1
    finally:
        descriptors.close()


def test_server_gets_maps_that_it_cannot_write(load: Load) -> None:
    _, descriptors = load(spec(COUNT_GETPPID, [RAW]))
    assert set(descriptors.readonly) == set(descriptors.maps) == {"calls", "lost_updates"}
    with pytest.raises(PermissionError):
        bpf.map_update(descriptors.readonly["calls"], bytes(4), bytes(8))
    bpf.map_update(descriptors.maps["calls"], bytes(4), bytes(8))


def test_verifier_refusal_names_the_function_and_quotes_the_end_of_the_log(load: Load) -> None:
    text = "int on_raw(struct bpf_raw_tracepoint_args *ctx) { int *p = 0; return *(volatile int *)p; }"
    outcome, descriptors = load(spec(text, [RAW], name="wild"))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.VERIFIER)
    first, *log = outcome.text.splitlines()
    assert first.startswith("wild: load on_raw for raw_tracepoint/sys_enter: the verifier refused it")
    assert 2 <= len(log) <= 15
    assert any("invalid mem access" in line for line in log)
    assert descriptors == Descriptors()


def test_verifier_refusal_leaves_nothing_open(load: Load) -> None:
    before = own_descriptors()
    load(spec("int on_raw(void *ctx) { int *p = 0; return *(volatile int *)p; }", [RAW]))
    assert own_descriptors() == before


def test_raw_tracepoint_program_that_reads_too_many_arguments_is_told_so(load: Load) -> None:
    text = "int on_raw(struct bpf_raw_tracepoint_args *ctx) { return ctx->args[8] == 1; }"
    outcome, _ = load(spec(text, [RAW]))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.VERIFIER)
    assert "on_raw reads more arguments than this tracepoint has" in outcome.text


def test_tracepoint_program_that_reads_beyond_the_record_is_told_so(load: Load) -> None:
    text = "int on_tracepoint(u64 *ctx) { return ctx[100] == 1; }"
    outcome, _ = load(spec(text, [TRACEPOINT]))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.VERIFIER)
    assert "on_tracepoint reads beyond this tracepoint's record" in outcome.text


@pytest.mark.parametrize(
    ("at", "hint"),
    [
        (point("tracepoint", "raw_syscalls:sys_entre", "on_tracepoint"), "near: raw_syscalls:sys_enter"),
        (point("raw_tracepoint", "sched_swich", "on_raw"), "near: sched_switch"),
        (point("tp_btf", "sched_swich", "on_btf"), "near: sched_switch"),
        (point("tracepoint", "qqqqqqqq:zzzzzzzz", "on_tracepoint"), "its module may not be loaded"),
    ],
    ids=lambda value: value.kind if isinstance(value, AttachSpec) else "",
)
def test_missing_tracepoint_names_near_ones(load: Load, at: AttachSpec, hint: str) -> None:
    outcome, _ = load(spec(COUNT_GETPPID, [at]))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.MISSING)
    assert outcome.text.startswith(f"test: attach {at.kind}/{at.targets[0]}: no such tracepoint (")
    assert hint in outcome.text


def test_missing_function_names_near_ones_for_fentry(load: Load) -> None:
    outcome, _ = load(spec(COUNT_GETPPID, [point("fentry", "tcp_sendmesg", "on_return")]))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.MISSING)
    assert outcome.text.startswith("test: attach fentry/tcp_sendmesg: no such function (near: tcp_sendmsg")


def test_function_that_the_c_text_lacks_is_named_with_those_it_has(load: Load) -> None:
    outcome, _ = load(spec(COUNT_GETPPID, [point("raw_tracepoint", "sys_enter", "on_rwa")]))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.BINDING)
    assert "no function on_rwa in the C text (there are: " in outcome.text
    assert "on_raw" in outcome.text


LISTENING = """
BPF_HASH(listening, u16, u32, 65536);
int on_raw(struct bpf_raw_tracepoint_args *ctx) { u16 port = 0; return listening.lookup(&port) != 0; }
"""


def test_map_is_seeded_before_the_program_is_handed_over(load: Load) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = struct.pack("=H", server.getsockname()[1])
        outcome, descriptors = load(spec(LISTENING, [RAW], maps={"listening": MapOptions(seed="listening_ports")}))
        assert outcome.state is State.RUNNING, outcome.text
        assert bpf.map_lookup(descriptors.readonly["listening"], port, 4) == struct.pack("=I", 1)


def test_seed_for_a_map_that_the_c_text_lacks_is_refused(load: Load) -> None:
    outcome, _ = load(spec(LISTENING, [RAW], maps={"listeners": MapOptions(seed="listening_ports")}))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.BINDING)
    assert outcome.text == "test: maps listeners: no such map (the C text has: listening)"


def test_closing_leaves_no_program_map_or_link_behind(load: Load) -> None:
    _, descriptors = load(spec(COUNT_GETPPID, [RAW, TRACEPOINT, TP_BTF]))
    programs = {bpf_stats.read(fd).id for fd in descriptors.programs.values()}
    maps = {bpf.map_info(fd).id for fd in descriptors.maps.values()}
    assert programs <= {entry["id"] for entry in bpftool("prog", "show")}
    assert maps <= {entry["id"] for entry in bpftool("map", "show")}
    linked = [entry for entry in bpftool("link", "show") if entry["prog_id"] in programs]
    assert len(linked) == 2  # the tracepoint is a perf event without a link
    events = [
        entry for entry in bpftool("perf", "show") if entry["prog_id"] in programs and entry["pid"] == os.getpid()
    ]
    assert any(entry["fd_type"] == "tracepoint" for entry in events)

    descriptors.close()

    assert own_descriptors() == []
    until(lambda: not programs & {entry["id"] for entry in bpftool("prog", "show")})
    until(lambda: not maps & {entry["id"] for entry in bpftool("map", "show")})
    assert not [entry for entry in bpftool("link", "show") if entry["prog_id"] in programs]


def test_kprobe_never_writes_kprobe_events(load: Load) -> None:
    events = Path("/sys/kernel/tracing/kprobe_events")
    before = events.read_text() if events.exists() else ""
    outcome, descriptors = load(spec(COUNT_GETPPID, [point("kprobe", "sys_getppid", "on_function")]))
    if perf_event.kprobe_type() is None:
        assert (outcome.state, outcome.reason) == (State.FAILED, Reason.UNSUPPORTED)
        assert "no kprobe PMU (CONFIG_KPROBE_EVENTS)" in outcome.text
    else:
        previous = calls(descriptors)
        for _ in range(23):
            os.getppid()
        assert calls(descriptors) - previous == 23
    assert (events.read_text() if events.exists() else "") == before


@pytest.mark.parametrize("kind", ["fentry", "fexit"])
def test_trampoline_counts_or_says_that_the_kernel_refuses_it(load: Load, kind: str) -> None:
    outcome, descriptors = load(spec(COUNT_GETPPID, [point(kind, "tcp_sendmsg", "on_return")]))
    if outcome.state is State.RUNNING:
        before = calls(descriptors)
        with connection() as sock:
            for _ in range(23):
                sock.send(b"x")
        assert calls(descriptors) - before == 23
    else:
        assert outcome.reason is Reason.UNSUPPORTED, outcome.text
        assert "this kernel refuses it even with CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN" in outcome.text


def test_kernel_answers_about_itself() -> None:
    kernel = Kernel()
    assert kernel.release == os.uname().release
    assert ("tcp_sendmsg", "") in kernel.functions()
    fields = kernel.tracepoint_fields("raw_syscalls", "sys_enter")
    assert fields
    assert fields["id"] == (8, 8)
    assert kernel.tracepoint_id("raw_syscalls", "no_such") is None


def test_btf_refusal_says_what_the_kernel_says() -> None:
    with pytest.raises(OSError, match="BPF_BTF_LOAD Invalid magic") as refusal:
        btf_objects.load(bytes(64))
    assert refusal.value.errno == errno.EINVAL
