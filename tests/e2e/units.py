"""The exporter as units of systemd in a Debian machine, installed as docs/systemd.md says, from its wheel."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e import debian, wheels
from tests.e2e.queries import ROOT
from tests.kernel import renames
from tests.matrix.kernels import cache_directory

SERVER, SUPERVISOR, SOCKET = "bpf-exporter.service", "bpf-exporter-supervisor.service", "bpf-exporter.socket"
PROGRAMS = ("tcp_latency", "tcp_rst", "tcp_sendmsg", "renames")
CONFIG = renames.CONFIG + "".join(f"  - use: {name}\n" for name in PROGRAMS[:3])
URL = "http://localhost:10435"
PLACES = {
    SERVER: "etc/systemd/system",
    SUPERVISOR: "etc/systemd/system",
    SOCKET: "etc/systemd/system",
    "sysusers.conf": "usr/lib/sysusers.d/bpf-exporter.conf",
    "tmpfiles.conf": "usr/lib/tmpfiles.d/bpf-exporter.conf",
    "bpf-exporter.default": "etc/default/bpf-exporter",
}


class Machine(debian.Machine):
    """A booted machine with the exporter installed."""

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Once more where systemd could not start a process: 257 now and then removes the cgroup of the one before when
        it has just looked at it ("Failed to spawn executor: No such file or directory")."""
        for _ in range(3):
            done = self.run("systemctl", *arguments, check=False, timeout=120)
            if "failed because of unavailable resources" not in done.stderr:
                break
            time.sleep(0.5)
        if check and done.returncode:
            raise AssertionError(f"systemctl {' '.join(arguments)}: {done.stderr}{self.journal()}")
        return done

    def get(self, path: str = "/metrics") -> str:
        return self.run("curl", "-sSf", "--max-time", "20", URL + path).stdout

    def journal(self) -> str:
        units = [option for unit in (SERVER, SUPERVISOR, SOCKET) for option in ("-u", unit)]
        return self.run("journalctl", "--no-pager", "-b", *units, check=False).stdout

    def main_pid(self, unit: str) -> int:
        """Return the process id of a unit in the machine, 0 where it does not run."""
        return int(self.property(unit, "MainPID"))

    def host_main_pid(self, unit: str) -> int:
        return self.host_pid(self.main_pid(unit))

    def counted(self, pid: int) -> float:
        """Return the renames of a process of the host that the metrics show; 0 where they show none."""
        found = re.search(rf'^ebpf_renames_total\{{pid="{pid}"\}} (\S+)$', self.get(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def bpf_programs(self) -> set[int]:
        """Return the ids of the BPF programs that the supervisor has open, from its fdinfo (proc(5))."""
        found = set()
        for info in Path(f"/proc/{self.host_main_pid(SUPERVISOR)}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                found |= {int(number) for number in re.findall(r"^prog_id:\s+(\d+)$", info.read_text(), re.MULTILINE)}
        return found

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    @contextlib.contextmanager
    def drop_in(self, unit: str, text: str) -> Iterator[None]:
        """Add settings to a unit for the block (systemd.unit(5), drop-in)."""
        directory = self.root / f"etc/systemd/system/{unit}.d"
        directory.mkdir()
        (directory / "test.conf").write_text(text)
        self.systemctl("daemon-reload")
        try:
            yield
        finally:
            shutil.rmtree(directory)
            self.systemctl("daemon-reload")


@contextlib.contextmanager
def installed(suite: str, scratch: Path, config: str = CONFIG) -> Iterator[Machine]:
    """Boot a machine of this suite with the exporter in /opt/bpf-exporter and its units, not started."""
    cache = cache_directory()
    packages = wheels.dependencies(cache, suite)
    wheel = wheels.project(packages, scratch)
    with debian.overlay(debian.root(cache, suite)) as merged:
        shutil.copytree(packages, merged / "root/wheels")
        shutil.copy(wheel, merged / "root/wheels")
        (merged / "etc/bpf-exporter").mkdir()
        (merged / "etc/bpf-exporter/config.yaml").write_text(config)
        for name, place in PLACES.items():
            target = merged / place
            shutil.copy(ROOT / "systemd" / name, target)
        (merged / "usr/local/bin/bpf-exporter").symlink_to("/opt/bpf-exporter/bin/bpf-exporter")
        with debian.booted(merged) as booted:
            machine = Machine(booted.root, booted.init)
            machine.run("/usr/bin/python3", "-m", "venv", "--system-site-packages", "/opt/bpf-exporter")
            machine.run("/opt/bpf-exporter/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/root/wheels",
                        "bpf-exporter", timeout=300)  # fmt: skip
            machine.run("systemd-sysusers")
            machine.run("systemd-tmpfiles", "--create", "bpf-exporter.conf")
            yield machine


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[Machine]:
    """Start the units, and stop them at the end."""
    started = machine.systemctl("start", SERVER, check=False)
    try:
        assert started.returncode == 0, started.stderr + machine.journal()
        yield machine
    finally:
        machine.systemctl("stop", SERVER, SUPERVISOR, SOCKET, check=False)
        machine.systemctl("reset-failed", check=False)


def loaded_programs() -> set[int]:
    """Return the ids of all BPF programs in the kernel."""
    shown = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return {program["id"] for program in json.loads(shown)}
