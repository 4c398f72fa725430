"""The Debian package on Debian 12 and 13 with real systemd: installed, upgraded, downgraded, removed, purged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter import __version__
from tests.e2e import debian, package
from tests.e2e.queries import ROOT
from tests.matrix.kernels import cache_directory

UNIT = "bpf-exporter.service"
METRICS = "http://localhost:10435/metrics"
CONFIG = "/etc/bpf-exporter/config.yaml"
NEXT = "99.0.0"
SUITES = ("bookworm", "trixie")


@dataclass(frozen=True)
class Packages:
    """The package as it is built, and as a later release of itself."""

    now: Path
    later: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    scratch = tmp_path_factory.mktemp("package")
    now = package.build(scratch)
    return Packages(now, package.renamed(now, NEXT, scratch))


def test_the_page_lists_what_is_in_it(packages: Packages) -> None:
    listed = subprocess.run(["dpkg-deb", "--contents", packages.now], capture_output=True, text=True, check=True).stdout
    inside = set(re.findall(r" \./(\S+)(?: |$)", listed, re.MULTILINE))
    rows = set(re.findall(r"^\| /((?:etc|usr)/\S+) \|", (ROOT / "docs/install.md").read_text(), re.MULTILINE))
    assert rows <= inside
    # And whatever is not in a directory of its own.
    assert {
        path for path in inside if path.startswith(("etc/", "usr/bin/", "usr/lib/s", "usr/lib/t")) and path[-1] != "/"
    } <= rows


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest, packages: Packages) -> Iterator[debian.Machine]:
    """A booted machine with the packages in /root and nothing of them installed."""
    with debian.overlay(debian.root(cache_directory(), request.param)) as merged:
        shutil.copy(packages.now, merged / "root/now.deb")
        shutil.copy(packages.later, merged / "root/later.deb")
        with debian.booted(merged) as booted:
            yield booted


@pytest.fixture
def installed(machine: debian.Machine) -> Iterator[debian.Machine]:
    """Installed as `apt install` does it, and purged afterwards."""
    dpkg(machine, "--install", "/root/now.deb")
    try:
        yield machine
    finally:
        dpkg(machine, "--purge", "bpf-exporter")


def test_installing_starts_it_and_every_start_of_the_machine_does(installed: debian.Machine) -> None:
    assert installed.property(UNIT, "ActiveState") == "active", journal(installed)
    assert installed.run("systemctl", "is-enabled", UNIT).stdout.strip() == "enabled"
    page = metrics(installed)
    for program in ("tcp_rst", "tcp_sendmsg", "tcp_latency"):
        assert f'bpf_exporter_program_state{{program="{program}",state="running"}} 1' in page, journal(installed)
    assert f'version="{__version__}"' in page
    assert installed.run("bpf-exporter", "--version").stdout.strip() == f"bpf-exporter {__version__}"
    assert installed.run("bpf-exporter", "check").stderr == ""


def test_what_is_installed_is_whole_and_compiled_for_the_python_of_the_release(installed: debian.Machine) -> None:
    assert installed.run("dpkg", "--verify", "bpf-exporter").stdout == ""
    assert installed.run("dpkg", "--audit").stdout == ""
    version = installed.run("python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])").stdout.strip()
    library = installed.root / "usr/lib/bpf-exporter/lib"
    assert {path.name.split(".")[-2] for path in library.rglob("exporter/**/*.pyc")} == {f"cpython-{version}"}


def test_an_upgrade_keeps_the_configuration_and_so_does_a_downgrade(installed: debian.Machine) -> None:
    config = installed.root / CONFIG.lstrip("/")
    config.write_text("programs:\n  - use: tcp_rst\n")
    dpkg(installed, "--install", "/root/later.deb")
    assert config.read_text() == "programs:\n  - use: tcp_rst\n"
    assert installed.property(UNIT, "ActiveState") == "active", journal(installed)
    page = metrics(installed)
    assert f'version="{NEXT}"' in page
    assert 'program="tcp_rst",state="running"} 1' in page
    assert "tcp_sendmsg" not in page
    dpkg(installed, "--install", "/root/now.deb")
    assert config.read_text() == "programs:\n  - use: tcp_rst\n"
    assert f'version="{__version__}"' in metrics(installed), journal(installed)


def test_an_upgrade_leaves_stopped_what_was_stopped_and_disabled_what_was_disabled(installed: debian.Machine) -> None:
    installed.run("systemctl", "disable", "--now", UNIT)
    dpkg(installed, "--install", "/root/later.deb")
    assert installed.property(UNIT, "ActiveState") == "inactive"
    assert installed.run("systemctl", "is-enabled", UNIT, check=False).stdout.strip() == "disabled"


def test_another_python_gets_its_modules_compiled(installed: debian.Machine) -> None:
    library = installed.root / "usr/lib/bpf-exporter/lib"
    for path in library.rglob("exporter/**/*.pyc"):
        path.unlink()
    installed.run("dpkg-trigger", "--no-await", "/usr/bin/python3")
    dpkg(installed, "--configure", "--pending")
    assert list(library.rglob("exporter/**/*.pyc"))
    assert installed.property(UNIT, "ActiveState") == "active", journal(installed)
    assert "bpf_exporter_build_info" in metrics(installed)


def test_removing_detaches_everything_and_leaves_only_the_configuration(installed: debian.Machine) -> None:
    programs = bpf_programs(installed)
    assert programs
    dpkg(installed, "--remove", "bpf-exporter")
    assert eventually(lambda: not programs & loaded_programs())
    assert not (installed.root / "usr/lib/bpf-exporter").exists()
    assert (installed.root / CONFIG.lstrip("/")).exists()
    dpkg(installed, "--install", "/root/now.deb")
    assert installed.property(UNIT, "ActiveState") == "active", journal(installed)


def test_purging_leaves_nothing_but_the_user(machine: debian.Machine) -> None:
    before = files(machine)
    config = machine.root / CONFIG.lstrip("/")
    config.parent.mkdir()
    config.write_text("programs:\n  - use: tcp_rst\n")  # a fleet's own, there before the package
    dpkg(machine, "--force-confold", "--install", "/root/now.deb")
    assert config.read_text() == "programs:\n  - use: tcp_rst\n"
    dpkg(machine, "--purge", "bpf-exporter")
    assert files(machine) - before == set()
    assert machine.property(UNIT, "LoadState") == "not-found"


def dpkg(machine: debian.Machine, *arguments: str) -> None:
    """dpkg as a machine without a terminal calls it: a question is not answered but fails."""
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *arguments, timeout=600)


def metrics(machine: debian.Machine) -> str:
    return machine.run("curl", "-sSf", "--max-time", "10", METRICS).stdout


def journal(machine: debian.Machine) -> str:
    return machine.run("journalctl", "--no-pager", "-b", "-u", "bpf-exporter*", check=False).stdout


def files(machine: debian.Machine) -> set[str]:
    """Every path where packages and the exporter write, but for the accounts of users."""
    found = machine.run("find", "/usr", "/etc", "/var/lib/systemd", "/var/cache", "/opt", "/run/bpf-exporter", "-print",
                        check=False, timeout=300).stdout  # fmt: skip
    # passwd- and its like: what systemd-sysusers keeps of the file before it.
    return {path for path in found.splitlines() if not re.match(r"/etc/\.?(passwd|group|shadow|gshadow)", path)}


def bpf_programs(machine: debian.Machine) -> set[int]:
    """The kernel's numbers of the BPF programs that the exporter's processes in the machine hold."""
    namespace = os.readlink(f"/proc/{machine.init}/ns/pid")
    found: set[int] = set()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if not process.name.isdigit() or os.readlink(process / "ns/pid") != namespace:
                continue
            if "/bpf-exporter" in (process / "cgroup").read_text():  # and not systemd, which has programs of its own
                for info in (process / "fdinfo").iterdir():
                    text = info.read_text()
                    found |= {int(number) for number in re.findall(r"^prog_id:\s+(\d+)$", text, re.MULTILINE)}
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
