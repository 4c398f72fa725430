"""A Debian machine with real systemd: debootstrap's root, kept in the cache, booted by systemd-nspawn on an overlay.

What a test writes goes to the overlay and away with it; the cached root stays as debootstrap left it. The machine has
its own process, mount and network namespaces (loopback only) and the host's kernel, BPF and tracefs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.matrix import apt
from tests.waiting import until

SUITE = "bookworm"  # Debian 12; "trixie" is 13
# systemd-sysv: /sbin/init; python3-bpfcc: the compiler; the others are what an administrator has at hand.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "python3-bpfcc", "procps", "curl")
BOOT_SECONDS = 90.0
# What the exporter needs of the host: the kernel's types, tracepoints' formats, and a BPF file system.
BINDS = ("/sys/kernel/btf", "/sys/kernel/tracing", "/sys/fs/bpf")


@dataclass(frozen=True)
class Machine:
    """A booted machine. `root` is its file system as the host sees it, `init` its systemd's process id on the host."""

    root: Path
    init: int

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command inside. AssertionError with its output if it fails."""
        inside = ["nsenter", "-t", str(self.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--", *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def host_pid(self, pid: int) -> int:
        """Return the host's id of a process that is `pid` in the machine. LookupError if there is none."""
        namespace = os.readlink(f"/proc/{self.init}/ns/pid")
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, StopIteration):
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == namespace:
                    line = next(x for x in (entry / "status").read_text().splitlines() if x.startswith("NSpid:"))
                    if int(line.split()[-1]) == pid:
                        return int(entry.name)
        raise LookupError(f"no process {pid} in the machine")


def root(cache: Path, suite: str = SUITE) -> Path:
    """Return the root file system of `suite` in `cache`, made by debootstrap where it is missing."""
    mark = hashlib.sha256(" ".join((suite, *PACKAGES)).encode()).hexdigest()[:12]
    directory = cache / f"debian-{suite}-{mark}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            _debootstrap(directory, suite)
    return directory


@contextlib.contextmanager
def overlay(lower: Path) -> Iterator[Path]:
    """Mount a writable overlay over `lower`, and remove what was written at the end."""
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-debian-") as name:
        upper, work, merged = (Path(name) / part for part in ("upper", "work", "merged"))
        for directory in (upper, work, merged):
            directory.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", merged], check=True)


@contextlib.contextmanager
def booted(merged: Path) -> Iterator[Machine]:
    """Boot a machine on that root, and stop it at the end."""
    log = merged.parent / "console.log"
    command = [
        *("systemd-nspawn", "--quiet", "-D", str(merged), "--boot", "--private-network", "--private-users=no"),
        *("--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off", "--timezone=off"),
        *("--capability=all", "--system-call-filter=bpf perf_event_open"),
        *(f"--bind={path}" for path in BINDS),
    ]
    with log.open("wb") as console:
        nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    try:
        machine = Machine(merged, _init_of(nspawn, log))
        _wait_for_boot(machine, log)
        yield machine
    finally:
        nspawn.send_signal(signal.SIGTERM)  # nspawn passes it on as SIGRTMIN+3: halt
        try:
            nspawn.wait(30)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()


def _debootstrap(directory: Path, suite: str) -> None:
    partial = directory.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    mirror = apt.mirrors()["Debian"]
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(partial), mirror]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"debootstrap {suite}: {' | '.join(done.stdout.splitlines()[-5:])} {done.stderr}")
    shutil.rmtree(partial / "var/cache/apt/archives", ignore_errors=True)
    partial.rename(directory)


def _init_of(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    """Return the process id of the machine's systemd: the child of nspawn in another PID namespace."""
    ours = os.readlink("/proc/self/ns/pid")

    def init() -> int:
        assert nspawn.poll() is None, log.read_text(errors="replace")
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
                if os.readlink(f"/proc/{child}/ns/pid") != ours:
                    return int(child)
        return 0

    return until(init, lambda: log.read_text(errors="replace"), BOOT_SECONDS)


def _wait_for_boot(machine: Machine, log: Path) -> None:
    def state() -> str:
        done = machine.run("systemctl", "is-system-running", check=False)
        return done.stdout.strip() or done.stderr.strip()

    until(
        lambda: state() in ("running", "degraded"),
        lambda: f"the machine is {state()!r}:\n{log.read_text(errors='replace')}",
        BOOT_SECONDS,
        every=0.2,
    )
