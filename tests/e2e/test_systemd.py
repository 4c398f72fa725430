"""The unit file under real systemd, on Debian 12, with the project installed from its wheel."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import debian, wheels
from tests.e2e.queries import ROOT
from tests.matrix.kernels import cache_directory

UNIT = "bpf-exporter.service"
PROGRAMS = ("tcp_latency", "tcp_rst", "tcp_sendmsg")
CONFIG = "programs:\n" + "".join(f"  - use: {name}\n" for name in PROGRAMS)
METRICS = "http://localhost:10435/metrics"
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[debian.Machine]:
    """A booted machine with the exporter in /opt/bpf-exporter, its configuration and its unit, not yet started."""
    cache = cache_directory()
    packages = wheels.dependencies(cache)
    wheel = wheels.project(packages, tmp_path_factory.mktemp("wheel"))
    with debian.overlay(debian.root(cache)) as merged:
        shutil.copytree(packages, merged / "root/wheels")
        shutil.copy(wheel, merged / "root/wheels")
        _write(merged / "etc/bpf-exporter/config.yaml", CONFIG)
        _write(merged / "etc/systemd/system" / UNIT, (ROOT / "systemd" / UNIT).read_text())
        _write(merged / "root/chatter.py", CHATTER)
        with debian.booted(merged) as machine:
            machine.run("/usr/bin/python3", "-m", "venv", "--system-site-packages", "/opt/bpf-exporter")
            machine.run("/opt/bpf-exporter/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/root/wheels",
                        "bpf-exporter", timeout=300)  # fmt: skip
            yield machine


@pytest.fixture
def running(installed: debian.Machine) -> Iterator[debian.Machine]:
    """The unit is started, and stopped afterwards."""
    started = installed.run("systemctl", "start", UNIT, check=False, timeout=300)
    try:
        assert started.returncode == 0, started.stderr + journal(installed)
        yield installed
    finally:
        installed.run("systemctl", "stop", UNIT, check=False)
        installed.run("systemctl", "reset-failed", UNIT, check=False)


def test_unit_file_is_valid(installed: debian.Machine) -> None:
    verified = installed.run("systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}", check=False)
    assert verified.returncode == 0
    assert verified.stderr == ""


def test_start_returns_when_every_program_was_tried(running: debian.Machine) -> None:
    assert running.property(UNIT, "ActiveState") == "active"
    assert running.property(UNIT, "StatusText") == f"{len(PROGRAMS)} of {len(PROGRAMS)} programs running"
    text = metrics(running)
    for name in PROGRAMS:
        assert f'bpf_exporter_program_state{{program="{name}",state="running"}} 1' in text, journal(running)
    assert "bpf_exporter_server_unprivileged 1" in text


def test_status_shows_the_unit_and_its_processes(running: debian.Machine) -> None:
    status = running.run("systemctl", "status", "--no-pager", UNIT).stdout
    assert "Active: active (running)" in status
    assert 'Status: "3 of 3 programs running"' in status
    assert "bpf-exporter run --config.file /etc/bpf-exporter/config.yaml" in status


def test_sends_of_a_unit_are_counted_under_its_name(running: debian.Machine) -> None:
    name = f"chatter{time.monotonic_ns()}.service"
    running.run("systemd-run", "--quiet", f"--unit={name}", "/usr/bin/python3", "/root/chatter.py")
    labels = f'{{container="none",family="ipv4",unit="{name}"}}'
    try:
        assert eventually(lambda: f"ebpf_tcp_sendmsg_calls_total{labels} {CALLS}\n" in metrics(running)), metrics(
            running
        )
        assert f"ebpf_tcp_sendmsg_bytes_total{labels} {CALLS * 7}\n" in metrics(running)
        assert f"ebpf_tcp_sendmsg_errors_total{labels} 0\n" in metrics(running)
    finally:
        running.run("systemctl", "stop", name)


def test_stop_detaches_everything(running: debian.Machine) -> None:
    programs = bpf_programs(running)
    assert programs
    assert programs <= loaded_programs()
    running.run("systemctl", "stop", UNIT)
    assert running.property(UNIT, "ActiveState") == "inactive"
    assert running.property(UNIT, "Result") == "success"
    assert eventually(lambda: not programs & loaded_programs())


def test_killed_supervisor_is_started_again_and_leaves_nothing_attached(running: debian.Machine) -> None:
    programs, before = bpf_programs(running), main_pid(running)
    running.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT)
    assert eventually(lambda: main_pid(running) not in (0, before)), journal(running)
    assert eventually(lambda: running.property(UNIT, "ActiveState") == "active", seconds=60), journal(running)
    assert running.property(UNIT, "NRestarts") == "1"
    assert 'bpf_exporter_program_state{program="tcp_rst",state="running"} 1' in metrics(running)
    assert eventually(lambda: not programs & loaded_programs())
    assert bpf_programs(running)


def test_a_reload_is_refused_and_sighup_changes_nothing(running: debian.Machine) -> None:
    before = main_pid(running)
    assert running.run("systemctl", "reload", UNIT, check=False).returncode != 0
    running.run("systemctl", "kill", "--kill-who=main", "--signal=HUP", UNIT)
    assert eventually(lambda: "SIGHUP" in journal(running))
    assert main_pid(running) == before
    assert "bpf_exporter_build_info" in metrics(running)


def test_second_start_compiles_nothing(running: debian.Machine) -> None:
    running.run("systemctl", "restart", UNIT)
    text = metrics(running)
    seconds = re.findall(r"^bpf_exporter_program_compile_seconds\{.*\} (\S+)$", text, re.MULTILINE)
    assert len(seconds) == len(PROGRAMS)
    assert {float(s) for s in seconds} == {0.0}


def test_mistake_in_the_configuration_is_not_tried_again(installed: debian.Machine) -> None:
    config = installed.root / "etc/bpf-exporter/config.yaml"
    config.write_text("programs:\n  - use: no_such_program\n")
    try:
        assert installed.run("systemctl", "start", UNIT, check=False).returncode != 0
        assert installed.property(UNIT, "ExecMainStatus") == "3"
        assert installed.property(UNIT, "NRestarts") == "0"
        assert installed.property(UNIT, "ActiveState") == "failed"
        assert "config.yaml:2:" in journal(installed)
    finally:
        config.write_text(CONFIG)
        installed.run("systemctl", "reset-failed", UNIT, check=False)


def metrics(machine: debian.Machine) -> str:
    return machine.run("curl", "-sSf", "--max-time", "10", METRICS).stdout


def journal(machine: debian.Machine) -> str:
    return machine.run("journalctl", "--no-pager", "-b", "-u", UNIT, check=False).stdout


def main_pid(machine: debian.Machine) -> int:
    return int(machine.property(UNIT, "MainPID"))


def bpf_programs(machine: debian.Machine) -> set[int]:
    """The kernel's numbers of the BPF programs that the supervisor holds, from its fdinfo (proc(5))."""
    found = set()
    for info in Path(f"/proc/{machine.host_pid(main_pid(machine))}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(number) for number in re.findall(r"^prog_id:\s+(\d+)$", info.read_text(), re.MULTILINE)}
    return found


def loaded_programs() -> set[int]:
    """The numbers of all BPF programs in the kernel, whoever they belong to."""
    shown = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return {program["id"] for program in json.loads(shown)}


def eventually(holds: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
