"""Rights given up: what the kernel says of the process afterwards, and what such a process can still name."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from exporter.decoders import Names
from exporter.kernel import bpf, cgroups, credentials
from exporter.kernel.credentials import CAP_BPF, Credentials
from tests.waiting import child, fork, in_child, kill

NOBODY = 65534
LRU_HASH = 9  # BPF_MAP_TYPE_LRU_HASH: needs CAP_BPF whatever kernel.unprivileged_bpf_disabled says


def dropped(*keep: int) -> Credentials:
    """What the parent reads in /proc/PID/status of a child that gave up all but `keep`."""
    reading, writing = os.pipe()

    def drop() -> None:
        os.setgroups([4, 24])
        credentials.drop_to(NOBODY, NOBODY, keep)
        os.write(writing, b"dropped")
        signal.pause()

    with child(drop) as pid, os.fdopen(reading, "rb") as pipe:
        os.close(writing)
        assert pipe.read(7) == b"dropped"
        return credentials.read(pid=pid)


@pytest.mark.parametrize("keep", [(), (CAP_BPF,)])
def test_process_keeps_exactly_what_it_asked_for(keep: tuple[int, ...]) -> None:
    now = dropped(*keep)
    assert now.uids == now.gids == (NOBODY,) * 4
    assert now.groups == ()
    assert now.permitted == now.effective == now.bounding == frozenset(keep)
    assert now.inheritable == now.ambient == frozenset()
    assert now.no_new_privs


def test_root_does_not_come_back() -> None:
    def work() -> str:
        credentials.drop_to(NOBODY, NOBODY, {CAP_BPF})
        os.setuid(0)
        return "root again"

    with pytest.raises(PermissionError):
        in_child(work)


def test_program_started_afterwards_has_no_capability() -> None:
    def work() -> str:
        credentials.drop_to(NOBODY, NOBODY, {CAP_BPF})
        return subprocess.run(["grep", "Cap", "/proc/self/status"], capture_output=True, text=True, check=True).stdout

    lines = dict(line.split(":\t") for line in in_child(work).splitlines())
    assert {lines[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


def test_cap_bpf_is_enough_to_make_a_map_and_nothing_is_not() -> None:
    def with_it() -> int:
        credentials.drop_to(NOBODY, NOBODY, {CAP_BPF})
        return bpf.map_create(LRU_HASH, 4, 4, 1, name="kept")

    def without() -> int:
        credentials.drop_to(NOBODY, NOBODY)
        return bpf.map_create(LRU_HASH, 4, 4, 1, name="dropped")

    assert in_child(with_it) > 0
    with pytest.raises(PermissionError):
        in_child(without)


def test_user_set_by_a_service_manager_is_no_error() -> None:
    """systemd's User= leaves the user's own group as a supplementary one, and no right to take it away."""

    def work() -> Credentials:
        os.setgroups([NOBODY])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        credentials.drop_to(NOBODY, NOBODY)
        return credentials.read()

    now = in_child(work)
    assert now.groups == (NOBODY,)
    assert now.permitted == frozenset()
    assert now.no_new_privs


def test_group_of_somebody_else_that_cannot_be_left_is_refused() -> None:
    def work() -> None:
        os.setgroups([24])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        credentials.drop_to(NOBODY, NOBODY)

    with pytest.raises(PermissionError, match="drop to uid 65534 gid 65534: "):
        in_child(work)


def test_dropping_twice_is_no_error() -> None:
    def work() -> Credentials:
        credentials.drop_to(NOBODY, NOBODY, {CAP_BPF})
        credentials.drop_to(NOBODY, NOBODY)
        return credentials.read()

    assert in_child(work).permitted == frozenset()


def test_capability_that_is_not_held_cannot_be_kept() -> None:
    def work() -> None:
        credentials.drop_to(NOBODY, NOBODY)
        credentials.drop_to(NOBODY, NOBODY, {CAP_BPF})

    with pytest.raises(PermissionError, match=r"drop to uid 65534: capabilities to keep are not held: \[39\]"):
        in_child(work)


def test_another_thread_would_keep_its_rights_so_dropping_is_refused() -> None:
    def work() -> None:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            credentials.drop_to(NOBODY, NOBODY)
        finally:
            stop.set()
            thread.join()

    with pytest.raises(OSError, match="drop to uid 65534: 2 threads run already"):
        in_child(work)


def test_step_that_the_kernel_refuses_is_named() -> None:
    def work() -> None:
        credentials.drop_to(NOBODY, NOBODY)
        credentials.drop_to(0, 0)

    with pytest.raises(PermissionError, match="drop to uid 0 gid 0: "):
        in_child(work)


def test_others_of_the_same_user_cannot_take_its_descriptors() -> None:
    def work() -> bool:
        me = os.getpid()

        def look() -> bool:
            try:
                os.listdir(f"/proc/{me}/fd")
            except (PermissionError, FileNotFoundError):  # the latter where /proc is mounted with hidepid=invisible
                return False
            return True

        def can_be_taken() -> bool:
            return in_child(look)

        assert can_be_taken()
        credentials.drop_to(NOBODY, NOBODY)
        return not can_be_taken()

    assert in_child(work)


def test_child_dies_with_its_parent_also_after_the_drop() -> None:
    reading, writing = os.pipe()

    def bear() -> None:
        parent = os.getpid()

        def drop() -> None:
            credentials.drop_to(NOBODY, NOBODY)
            credentials.die_with_parent(signal.SIGKILL, parent)
            os.write(writing, b"ready")
            signal.pause()

        fork(drop)
        signal.pause()

    middle = fork(bear)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        assert pipe.read(5) == b"ready"
        kill(middle)
        assert pipe.read() == b""  # the end of the last holder of the writing end


def test_parent_that_is_already_gone_is_noticed() -> None:
    with pytest.raises(ProcessLookupError, match="parent process 1 has ended"):
        in_child(lambda: credentials.die_with_parent(signal.SIGKILL, 1))


def test_names_opened_by_root_serve_a_process_without_rights() -> None:
    mount = cgroups.find_mount(Path("/proc"))
    assert mount is not None
    made = mount / f"bpf-exporter-test-unprivileged-{os.getpid()}.scope"
    address = next(
        int(line.split()[0], 16) for line in Path("/proc/kallsyms").read_text().splitlines() if " tcp_sendmsg" in line
    )
    names = Names.open(enums=["skb_drop_reason"])

    def work() -> tuple[str | None, str | None, str | None, str | None, dict[int, str] | None]:
        credentials.drop_to(NOBODY, NOBODY)
        late = Names.open(enums=["skb_drop_reason"])
        return (
            names.symbols.name(address),
            names.cgroup_path(number),
            late.symbols.name(address),
            late.cgroup_path(number),
            names.enums.values("skb_drop_reason"),
        )

    made.mkdir()
    try:
        number = made.stat().st_ino
        symbol, path, late_symbol, late_path, reasons = in_child(work)
    finally:
        made.rmdir()
        names.close()
    assert symbol is not None
    assert symbol.startswith("tcp_sendmsg")
    assert path == f"/{made.name}"
    assert late_symbol is None  # kallsyms shows zeros to who opens it without rights
    assert late_path == f"/{made.name}"  # cgroup directories are open to all
    assert reasons is not None
    assert "SKB_DROP_REASON_NO_SOCKET" in reasons.values()
