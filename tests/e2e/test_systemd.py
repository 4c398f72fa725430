"""The units under real systemd, on Debian 12 and 13, with the project installed from its wheel."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import units
from tests.e2e.units import PROGRAMS, SERVER, SOCKET, SUPERVISOR, Machine, eventually, loaded_programs
from tests.kernel.renames import rename

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


def settle() -> None:
    """A collection is shared for half a second: what comes after this reads the maps again."""
    time.sleep(0.6)


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
        assert eventually(lambda: f"ebpf_tcp_sendmsg_calls_total{labels} {CALLS}\n" in running.get()), running.get()
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
        assert eventually(lambda unit=unit: running.property(unit, "ActiveState") == "inactive"), unit  # type: ignore[misc]
    assert eventually(lambda: not programs & loaded_programs())


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


# Counters survive


def kill(machine: Machine, unit: str) -> None:
    """kill -9, and wait for the next process of the unit."""
    before = machine.main_pid(unit)
    machine.systemctl("kill", "--kill-who=main", "--signal=KILL", unit)
    assert eventually(lambda: machine.main_pid(unit) not in (0, before)), machine.journal()
    assert eventually(lambda: machine.property(unit, "ActiveState") == "active"), machine.journal()


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
        settle()
        assert running.counted(ME) - before == 23 * round_, running.journal()
        assert eventually(lambda: running.bpf_programs() == programs), running.journal()
