"""The units under real systemd, on Debian 12 and 13, with the project installed from its wheel."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.e2e import units
from tests.e2e.units import PROGRAMS, SERVER, SOCKET, SUPERVISOR, Machine, loaded_programs
from tests.kernel.renames import rename
from tests.waiting import let_collection_expire, until

ME = os.getpid()
CALLS = 23  # a prime that nothing else is likely to make

# Sends CALLS times seven bytes over loopback, reads them, and stays: a unit that is gone has no name any more.
CHATTER = f"""
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
for _ in range({CALLS}):
    client.send(b"1234567")
    server.recv(7, socket.MSG_WAITALL)
time.sleep(600)
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine with the exporter and its units, not yet started."""
    with units.installed(request.param, tmp_path_factory.mktemp("wheel")) as machine:
        machine.write("root/chatter.py", CHATTER)
        yield machine


@pytest.fixture
def running(installed: Machine) -> Iterator[Machine]:
    """The units are started, and stopped afterwards."""
    with units.running(installed) as machine:
        yield machine


def is_running(machine: Machine, program: str) -> bool:
    return f'bpf_exporter_program_state{{program="{program}",state="running"}} 1' in machine.get()


def test_unit_files_are_valid(installed: Machine) -> None:
    verified = installed.run("systemd-analyze", "verify", SERVER, SUPERVISOR, SOCKET, check=False)
    assert verified.returncode == 0
    assert verified.stderr == ""


@pytest.mark.parametrize(("unit", "most"), [(SERVER, 1.3), (SUPERVISOR, 2.3)])
def test_exposure_is_small(installed: Machine, unit: str, most: float) -> None:
    said = installed.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= most, said


def test_start_returns_when_every_program_was_tried(running: Machine) -> None:
    for unit in (SERVER, SUPERVISOR, SOCKET):
        assert running.property(unit, "ActiveState") == "active"
    assert running.property(SERVER, "StatusText") == f"{len(PROGRAMS)} of {len(PROGRAMS)} programs running"
    for name in PROGRAMS:
        assert is_running(running, name), running.journal()
    assert "bpf_exporter_server_unprivileged 1" in running.get()


def test_sends_of_a_unit_are_counted_under_its_name(running: Machine) -> None:
    name = f"chatter{time.monotonic_ns()}.service"
    running.run("systemd-run", "--quiet", f"--unit={name}", "/usr/bin/python3", "/root/chatter.py")
    labels = f'{{container="none",family="ipv4",unit="{name}"}}'
    try:
        until(lambda: f"ebpf_tcp_sendmsg_calls_total{labels} {CALLS}\n" in running.get(), running.get)
        assert f"ebpf_tcp_sendmsg_bytes_total{labels} {CALLS * 7}\n" in running.get()
        assert f"ebpf_tcp_sendmsg_errors_total{labels} 0\n" in running.get()
    finally:
        running.run("systemctl", "stop", name)


def test_stop_detaches_everything(running: Machine) -> None:
    programs = running.bpf_programs()
    assert programs
    assert programs <= loaded_programs()
    running.systemctl("stop", SERVER)
    assert running.property(SERVER, "Result") == "success"
    for unit in (SERVER, SUPERVISOR, SOCKET):
        until(lambda unit=unit: running.property(unit, "ActiveState") == "inactive", unit)  # type: ignore[misc]
    until(lambda: not programs & loaded_programs())


def test_mistake_in_the_configuration_is_not_tried_again(installed: Machine) -> None:
    config = installed.root / "etc/bpf-exporter/config.yaml"
    right = config.read_text()
    config.write_text("programs:\n  - use: no_such_program\n")
    try:
        assert installed.systemctl("start", SUPERVISOR, check=False).returncode != 0
        assert installed.property(SUPERVISOR, "ExecMainStatus") == "3"
        assert installed.property(SUPERVISOR, "NRestarts") == "0"
        assert installed.property(SUPERVISOR, "ActiveState") == "failed"
        assert "config.yaml:2:" in installed.journal()
    finally:
        config.write_text(right)
        installed.systemctl("reset-failed", check=False)


# Least privilege

O_ACCMODE = 3  # include/uapi/asm-generic/fcntl.h
CAPABILITIES = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_SYS_ADMIN": 21, "CAP_SYSLOG": 34, "CAP_SYS_PTRACE": 19}


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_the_server_may_do_nothing_but_read_maps(running: Machine) -> None:
    pid = running.host_main_pid(SERVER)
    now = status(pid)
    assert "0" not in now["Uid"].split() + now["Gid"].split()
    assert now["Groups"] in ("", now["Gid"].split()[0])
    assert {now[f"Cap{each}"] for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (now["NoNewPrivs"], now["Seccomp"]) == ("1", "2")
    held = {fd: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    maps = [fd for fd, what in held.items() if what == "anon_inode:bpf-map"]
    assert maps
    for fd in maps:
        flags = re.search(r"^flags:\s*(\d+)$", Path(str(fd).replace("/fd/", "/fdinfo/")).read_text(), re.MULTILINE)
        assert flags is not None
        assert int(flags[1], 8) & O_ACCMODE == os.O_RDONLY
    # Its connections and the journal, the totals, the names of the host, and what its threads wait with.
    others = {what for fd, what in held.items() if fd not in maps and not what.startswith(("socket:", "/memfd:totals"))}
    others = {what for what in others if not re.fullmatch(r"/proc/\d+/statm", what)}  # its own, by its number in there
    assert others <= {"/dev/null", "/proc/kallsyms", "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/var/log/pods",
                      "anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:inotify"}  # fmt: skip


def test_the_supervisor_has_no_network_and_five_capabilities(running: Machine) -> None:
    pid = running.host_main_pid(SUPERVISOR)
    now = status(pid)
    assert int(now["CapBnd"], 16) == int(now["CapEff"], 16) == sum(1 << number for number in CAPABILITIES.values())
    assert (now["NoNewPrivs"], now["Seccomp"]) == ("1", "2")
    interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{running.init}/ns/net")
    for table in ("tcp", "tcp6", "udp", "udp6"):
        assert len(Path(f"/proc/{pid}/net/{table}").read_text().splitlines()) == 1  # the heading


def test_only_the_servers_user_may_connect_to_the_supervisor(running: Machine) -> None:
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.settimeout(20); s.connect('/run/bpf-exporter/supervisor.sock'); print(s.recv(64))"
    )
    nobody = running.run(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "python3", "-c", script, check=False
    )
    assert "PermissionError" in nobody.stderr
    other = running.run("setpriv", "--reuid=65534", "--regid=bpf-exporter", "--clear-groups", "python3", "-c", script)
    assert other.stdout == "b''\n"  # closed without a word
    second = running.run(
        "setpriv", "--reuid=bpf-exporter", "--regid=bpf-exporter", "--clear-groups", "python3", "-c", script
    )
    assert second.stdout == "b''\n"  # another one lives
    assert "refused a connection" in running.journal()
    assert "refused a second server" in running.journal()
    assert "\nbpf_exporter_supervisor_connected 1\n" in running.get()


# Counters survive


def kill(machine: Machine, unit: str) -> None:
    """kill -9, and wait for the next process of the unit."""
    before = machine.main_pid(unit)
    machine.systemctl("kill", "--kill-who=main", "--signal=KILL", unit)
    until(lambda: machine.main_pid(unit) not in (0, before), machine.journal)
    until(lambda: machine.property(unit, "ActiveState") == "active", machine.journal)


def restart(machine: Machine, *which: str) -> None:
    machine.systemctl("restart", *which)


def reexec(machine: Machine, *_: str) -> None:
    machine.systemctl("daemon-reexec")


INTERRUPTIONS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "kill -9 of the server": (kill, [SERVER]),
    "kill -9 of the supervisor": (kill, [SUPERVISOR]),
    "restart of the server": (restart, [SERVER]),
    "restart of the supervisor": (restart, [SUPERVISOR]),
    "restart of both": (restart, [SERVER, SUPERVISOR]),
    "daemon-reexec": (reexec, []),
}


@pytest.mark.parametrize("what", INTERRUPTIONS)
def test_no_event_is_missed_and_nothing_is_attached_anew(running: Machine, what: str) -> None:
    interrupt, which = INTERRUPTIONS[what]
    before, programs = running.counted(ME), running.bpf_programs()
    for round_ in range(1, 3):
        rename(7)
        interrupt(running, *which)
        rename(16)
        let_collection_expire()
        assert running.counted(ME) - before == 23 * round_, running.journal()
        until(lambda: running.bpf_programs() == programs, running.journal)


def test_a_scrape_while_the_supervisor_is_away_is_answered_from_the_maps(running: Machine) -> None:
    with running.drop_in(SUPERVISOR, "[Service]\nRestartSec=5s\n"):
        before, server = running.counted(ME), running.main_pid(SERVER)
        running.systemctl("kill", "--kill-who=main", "--signal=KILL", SUPERVISOR)
        until(lambda: running.property(SUPERVISOR, "SubState") == "auto-restart")
        rename(23)
        let_collection_expire()
        assert running.counted(ME) - before == 23
        assert "\nbpf_exporter_supervisor_connected 0\n" in running.get()
        until(lambda: "\nbpf_exporter_supervisor_connected 1\n" in running.get(), running.journal)
        assert running.counted(ME) - before == 23
        assert running.main_pid(SERVER) == server


def test_no_scrape_fails_while_server_and_supervisor_are_restarted(running: Machine) -> None:
    """systemd holds the socket, and the server answers what it has begun to answer."""
    rename(1)
    over, pages, failures = threading.Event(), list[str](), list[str]()

    def scrape() -> None:
        while not over.is_set():
            try:
                pages.append(running.get())
            except AssertionError as error:
                failures.append(str(error))

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    for scraper in scrapers:
        scraper.start()
    try:
        for _ in range(3):
            restart(running, SERVER)
            restart(running, SUPERVISOR)
    finally:
        over.set()
        for scraper in scrapers:
            scraper.join()
    assert not failures
    assert len(pages) > 3
    assert all("bpf_exporter_build_info" in page and "ebpf_renames_total" in page for page in pages)


def test_a_hung_process_is_killed_by_the_watchdog_and_an_idle_one_is_not(installed: Machine) -> None:
    short = "[Service]\nWatchdogSec=6s\n"
    with installed.drop_in(SERVER, short), installed.drop_in(SUPERVISOR, short), units.running(installed) as machine:
        before = machine.counted(ME)
        pids = {unit: machine.main_pid(unit) for unit in (SERVER, SUPERVISOR)}
        time.sleep(10)  # nobody scrapes: the server reads a map by itself
        assert pids == {unit: machine.main_pid(unit) for unit in pids}, machine.journal()
        for pid in pids.values():
            machine.run("kill", "-STOP", str(pid))
        rename(23)
        for unit, pid in pids.items():
            until(lambda unit=unit, pid=pid: machine.main_pid(unit) not in (0, pid), machine.journal)  # type: ignore[misc]
            until(lambda unit=unit: machine.property(unit, "ActiveState") == "active", machine.journal)  # type: ignore[misc]
        until(lambda: machine.counted(ME) - before == 23, machine.journal)
        assert machine.journal().count("atchdog timeout") >= 2


@pytest.mark.parametrize("how", ["reload", "restart"])
def test_reload_and_restart_reach_the_supervisor(running: Machine, how: str) -> None:
    config = running.root / "etc/bpf-exporter/config.yaml"
    right, before = config.read_text(), running.counted(ME)
    try:
        config.write_text(right.replace("  - use: tcp_rst\n", ""))
        running.systemctl(how, SERVER)
        until(lambda: 'program="tcp_rst"' not in running.get(), running.journal)
        rename(23)
        let_collection_expire()
        assert running.counted(ME) - before == 23
        kill(running, SUPERVISOR)  # what was taken away is not in the store, and what stayed is
        let_collection_expire()
        assert running.counted(ME) - before == 23
        assert 'program="tcp_rst"' not in running.get()
    finally:
        config.write_text(right)


def test_the_first_request_starts_everything(installed: Machine) -> None:
    """Socket activation: what systemd listens on waits until the server answers."""
    installed.systemctl("enable", "--now", SOCKET)
    try:
        assert installed.property(SERVER, "ActiveState") == "inactive"
        assert "bpf_exporter_build_info" in installed.get()
        until(lambda: installed.property(SERVER, "ActiveState") == "active", installed.journal)
    finally:
        installed.systemctl("disable", "--now", SOCKET)
        installed.systemctl("stop", SERVER, SUPERVISOR)


def test_another_version_of_the_stored_document_starts_clean(running: Machine) -> None:
    """A downgrade or an upgrade: nothing is misread, and what was stored is closed."""
    before = running.bpf_programs()
    module = next((running.root / "opt/bpf-exporter/lib").glob("python3*/site-packages/exporter/ipc/protocol.py"))
    text = module.read_text()
    try:
        module.write_text(text.replace("STORE_VERSION = 1", "STORE_VERSION = 2"))
        restart(running, SUPERVISOR)
        until(lambda: len(running.bpf_programs()) == len(before), running.journal)
        assert "of another version: all programs are loaded anew" in running.journal()
        until(lambda: not before & loaded_programs())
        until(lambda: "\nbpf_exporter_supervisor_connected 1\n" in running.get())
        let_collection_expire()
        counted, programs = running.counted(ME), running.bpf_programs()
        rename(23)
        let_collection_expire()
        assert running.counted(ME) - counted == 23
        restart(running, SUPERVISOR)  # the same version again: taken over
        assert running.bpf_programs() == programs
        module.write_text(text)
        restart(running, SUPERVISOR)
        until(lambda: not programs & loaded_programs())
    finally:
        module.write_text(text)


KILLS = int(os.environ.get("BPF_EXPORTER_UNIT_KILLS", "6"))


@pytest.mark.alone  # a scrape must be answered within 20 s, whatever is killed
def test_kills_at_random_moments_under_load_lose_nothing(running: Machine) -> None:
    """A scraper scrapes, this process makes events, and either role is killed at any moment. The table says what came
    of it: `make soak` prints it for 200."""
    random = Random(KILLS)
    start, made, shown = running.counted(ME), 0, 0.0
    failed: list[str] = []
    kills = {SERVER: 0, SUPERVISOR: 0}
    while sum(kills.values()) < KILLS:
        unit = random.choice((SERVER, SUPERVISOR))
        pid = running.main_pid(unit)
        pause = random.uniform(0, 1.5)
        end = time.monotonic() + pause
        while time.monotonic() < end:
            rename(23)
            made += 23
            try:
                now = running.counted(ME) - start
            except AssertionError as error:
                failed.append(f"after {kills}: {error}")
                continue
            assert shown <= now <= made, (unit, pause, running.journal())
            shown = now
        if pid:  # it may not have come back yet: that is no kill
            kills[unit] += running.run("kill", "-KILL", str(pid), check=False).returncode == 0
    for unit in kills:
        until(lambda unit=unit: running.property(unit, "ActiveState") == "active", running.journal)  # type: ignore[misc]
    until(lambda: running.counted(ME) - start == made, lambda: (running.counted(ME) - start, made))
    restarts = {unit: running.property(unit, "NRestarts") for unit in kills}
    print(f"\n{'killed':<36} {'times':>6} {'restarts':>9}")
    for unit, times in kills.items():
        print(f"{unit:<36} {times:>6} {restarts[unit]:>9}")
    print(f"events {made}, counted {running.counted(ME) - start:.0f}, scrapes that failed {len(failed)}")
    assert failed == []
