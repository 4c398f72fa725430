"""The Debian package on Debian 12 and 13 with real systemd: installed, upgraded, downgraded, removed, purged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter import __version__
from tests.e2e import debian, package
from tests.e2e.queries import ROOT
from tests.e2e.units import SERVER, Machine, loaded_programs
from tests.kernel import renames
from tests.matrix.kernels import cache_directory
from tests.waiting import until

pytestmark = pytest.mark.side

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
    shared = ("etc/", "usr/bin/", "usr/lib/systemd/", "usr/lib/sysusers.d/", "usr/lib/tmpfiles.d/")
    assert {path for path in inside if path.startswith(shared) and not path.endswith("/")} <= rows


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest, packages: Packages) -> Iterator[Machine]:
    """A booted machine with the packages in /root and nothing of them installed."""
    with debian.overlay(debian.root(cache_directory(), request.param)) as merged:
        shutil.copy(packages.now, merged / "root/now.deb")
        shutil.copy(packages.later, merged / "root/later.deb")
        with debian.booted(merged) as booted:
            yield Machine(booted.root, booted.init)


@pytest.fixture
def installed(machine: Machine) -> Machine:
    """As `apt install` leaves it: what a test before has changed is purged first."""
    if not is_as_installed(machine):
        dpkg(machine, "--purge", "bpf-exporter")
        dpkg(machine, "--install", "/root/now.deb")
    return machine


def is_as_installed(machine: Machine) -> bool:
    found = machine.run(
        "dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}", "bpf-exporter", check=False
    )
    return (
        found.stdout == f"{__version__} installed"
        and machine.run("dpkg", "--verify", "bpf-exporter").stdout == ""
        and machine.property(SERVER, "ActiveState") == "active"
        and machine.property(SERVER, "UnitFileState") == "enabled"
    )


def test_installing_starts_it_and_every_start_of_the_machine_does(installed: Machine) -> None:
    assert installed.property(SERVER, "ActiveState") == "active", installed.journal()
    assert installed.run("systemctl", "is-enabled", SERVER).stdout.strip() == "enabled"
    page = installed.get()
    for program in ("tcp_rst", "tcp_sendmsg", "tcp_latency"):
        assert f'bpf_exporter_program_state{{program="{program}",state="running"}} 1' in page, installed.journal()
    assert f'version="{__version__}"' in page
    assert installed.run("bpf-exporter", "--version").stdout.strip() == f"bpf-exporter {__version__}"
    assert installed.run("bpf-exporter", "check").stderr == ""


def test_what_is_installed_is_whole_and_compiled_for_the_python_of_the_release(installed: Machine) -> None:
    assert installed.run("dpkg", "--verify", "bpf-exporter").stdout == ""
    assert installed.run("dpkg", "--audit").stdout == ""
    version = installed.run("python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])").stdout.strip()
    library = installed.root / "usr/lib/bpf-exporter/lib"
    assert {path.name.split(".")[-2] for path in library.rglob("exporter/**/*.pyc")} == {f"cpython-{version}"}


def test_an_upgrade_keeps_the_configuration_and_so_does_a_downgrade(installed: Machine) -> None:
    config = installed.root / CONFIG.lstrip("/")
    config.write_text("programs:\n  - use: tcp_rst\n")
    dpkg(installed, "--install", "/root/later.deb")
    assert config.read_text() == "programs:\n  - use: tcp_rst\n"
    assert installed.property(SERVER, "ActiveState") == "active", installed.journal()
    page = installed.get()
    assert f'version="{NEXT}"' in page
    assert 'program="tcp_rst",state="running"} 1' in page
    assert "tcp_sendmsg" not in page
    dpkg(installed, "--install", "/root/now.deb")
    assert config.read_text() == "programs:\n  - use: tcp_rst\n"
    assert f'version="{__version__}"' in installed.get(), installed.journal()


def test_counters_go_on_over_an_upgrade_and_back(installed: Machine) -> None:
    """Events go on meanwhile, none is missed, and what counts them is what was attached before."""
    installed.write(CONFIG.lstrip("/"), renames.CONFIG)
    installed.systemctl("reload", SERVER)
    until(lambda: 'program="renames",state="running"} 1' in installed.get(), installed.journal)
    done = 0
    programs = installed.bpf_programs()
    assert programs
    for name in ("later", "now"):
        with Renaming() as renaming:
            dpkg(installed, "--install", f"/root/{name}.deb")
        done += renaming.times
        until(lambda: installed.counted(os.getpid()) >= done, installed.journal)  # noqa: B023
        assert installed.counted(os.getpid()) == done
        assert installed.bpf_programs() == programs


def test_an_upgrade_leaves_stopped_what_was_stopped_and_disabled_what_was_disabled(installed: Machine) -> None:
    installed.run("systemctl", "disable", "--now", SERVER)
    dpkg(installed, "--install", "/root/later.deb")
    assert installed.property(SERVER, "ActiveState") == "inactive"
    assert installed.run("systemctl", "is-enabled", SERVER, check=False).stdout.strip() == "disabled"


def test_another_python_gets_its_modules_compiled(installed: Machine) -> None:
    library = installed.root / "usr/lib/bpf-exporter/lib"
    for path in library.rglob("exporter/**/*.pyc"):
        path.unlink()
    installed.run("dpkg-trigger", "--no-await", "/usr/bin/python3")
    dpkg(installed, "--configure", "--pending")
    assert list(library.rglob("exporter/**/*.pyc"))
    assert installed.property(SERVER, "ActiveState") == "active", installed.journal()
    assert "bpf_exporter_build_info" in installed.get()


def test_removing_detaches_everything_and_leaves_only_the_configuration(installed: Machine) -> None:
    programs = installed.bpf_programs()
    assert programs
    dpkg(installed, "--remove", "bpf-exporter")
    until(lambda: not programs & loaded_programs())
    assert not (installed.root / "usr/lib/bpf-exporter").exists()
    assert (installed.root / CONFIG.lstrip("/")).exists()
    dpkg(installed, "--install", "/root/now.deb")
    assert installed.property(SERVER, "ActiveState") == "active", installed.journal()


def test_purging_leaves_nothing_but_the_user(machine: Machine) -> None:
    dpkg(machine, "--purge", "bpf-exporter")
    before = files(machine)
    config = machine.root / CONFIG.lstrip("/")
    config.parent.mkdir()
    config.write_text("programs:\n  - use: tcp_rst\n")  # a fleet's own, there before the package
    dpkg(machine, "--force-confold", "--install", "/root/now.deb")
    assert config.read_text() == "programs:\n  - use: tcp_rst\n"
    dpkg(machine, "--purge", "bpf-exporter")
    assert files(machine) - before == set()
    assert machine.property(SERVER, "LoadState") == "not-found"


class Renaming:
    """Renames this process for as long as it is entered; `times` it did, afterwards."""

    def __init__(self) -> None:
        self.times = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Renaming:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.005):
            renames.rename(23)
            self.times += 23


def dpkg(machine: Machine, *arguments: str) -> None:
    """dpkg as a machine without a terminal calls it: a question is not answered but fails. Not every file is synced."""
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-unsafe-io", *arguments, timeout=600)


def files(machine: Machine) -> set[str]:
    """Every path where packages and the exporter write, but for the accounts of users."""
    found = machine.run("find", "/usr", "/etc", "/var/lib/systemd", "/var/cache", "/opt", "/run/bpf-exporter",
                        "/var/lib/bpf-exporter", check=False, timeout=300).stdout  # fmt: skip
    # passwd- and its like: what systemd-sysusers keeps of the file before it.
    return {path for path in found.splitlines() if not re.match(r"/etc/\.?(passwd|group|shadow|gshadow)", path)}
