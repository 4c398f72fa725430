"""A kernel and a shell script -> what the script said, run as root on that kernel under QEMU (TCG, no KVM needed).

    run(kernel, "uname -r", work)  ->  Outcome(exit_code=0, log="6.1.0-56-amd64\\n", console=..., seconds=...)

The guest sees the machine's files (initramfs.py) and shares the directory `work` with the host as /mnt.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests import lanes
from tests.matrix import initramfs
from tests.matrix.initramfs import Files
from tests.matrix.kernels import Kernel

MEMORY = "1536M"
CPUS = 2
MONITOR = "monitor.sock"  # in `work`: by it a machine is started, paused and continued
REPORT_LINES = 60  # a panic with its registers and both traces; a job's last words
# mitigations=off: what they protect from does not exist here, and TCG pays dearly for them.
COMMAND_LINE = (
    "quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr "
    "random.trust_cpu=on cgroup_no_v1=all audit=0 apparmor=0"
)


class MachineError(RuntimeError):
    """The kernel did not boot or the job did not end; the text has the console's last lines."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`boot_seconds`: from the kernel's first tick to the job, by its clock; `seconds`: the whole run, by ours."""

    exit_code: int
    log: str
    console: str
    boot_seconds: float
    seconds: float


def run(kernel: Kernel, job: str, work: Path, timeout: float = 300.0, seen: Files | None = None) -> Outcome:
    """Boot `kernel`, run the shell text `job` in it, power off. MachineError on panic, timeout or no boot.

    `seen`: the guest's files, this machine's if it does not say."""
    seen = seen or Files()
    work.mkdir(parents=True, exist_ok=True)
    (work / initramfs.JOB).write_text(job)
    for name in ("job.log", "job.exit", MONITOR):
        (work / name).unlink(missing_ok=True)
    console = work / "console.log"
    ramdisk = initramfs.build(kernel.modules, seen, work / "initramfs.gz")
    start = time.monotonic()
    late = ""
    with console.open("wb") as out:
        process = subprocess.Popen(
            _command(kernel, ramdisk, work, seen),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if not _ended(process, work / MONITOR, timeout):
                late = f"not done after {timeout:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = time.monotonic() - start
    said = console.read_text(errors="replace").replace("\r", "")
    log = (work / "job.log").read_text(errors="replace") if (work / "job.log").exists() else ""
    ended = (work / "job.exit").read_text().strip() if (work / "job.exit").exists() else ""
    if late or not ended:
        why = late or ("the kernel panicked" if "Kernel panic" in said else "the machine ended before its job")
        raise MachineError(f"linux {kernel.release}: {why}\n{_tail('console', _trouble(said))}\n{_tail('job', log)}")
    boot = re.search(r"matrix: job starts at ([0-9.]+)", said)
    return Outcome(int(ended), log, said, float(boot[1]) if boot else 0.0, seconds)


def _ended(process: subprocess.Popen[bytes], monitor: Path, timeout: float) -> bool:
    """Run a paused machine to its end. Return False if it has not ended after `timeout` seconds without pauses."""
    left = timeout
    while process.poll() is None and left > 0:
        with lanes.room.beside():
            _tell(process, monitor, "cont")
            began = time.monotonic()
            while process.poll() is None and time.monotonic() - began < left and not lanes.room.is_wanted():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            left -= time.monotonic() - began
            _tell(process, monitor, "stop")
    return process.poll() is not None


def _tell(process: subprocess.Popen[bytes], monitor: Path, command: str) -> None:
    """Send one command of QMP (qemu-qmp-ref(7)) to a machine; nothing where it has ended."""
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(monitor))
            lines = connection.makefile("rw")
            lines.readline()  # the greeting
            for each in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": each}) + "\n")
                lines.flush()
                while "return" not in json.loads(lines.readline()):  # an event
                    pass
            return
        time.sleep(0.05)  # it does not listen yet


def _command(kernel: Kernel, ramdisk: Path, work: Path, seen: Files) -> list[str]:
    built_for = kernel.architecture
    readonly = [("root", seen.root), *initramfs.shares(seen)]
    return [
        *("nice", "-n", "19", *built_for.qemu, "-S", "-qmp", f"unix:{work / MONITOR},server=on,wait=off"),
        *("-accel", "tcg,thread=multi", "-smp", str(CPUS), "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-nic", "none", "-serial", "stdio"),
        *("-kernel", str(kernel.vmlinuz), "-initrd", str(ramdisk), "-append", f"{built_for.console} {COMMAND_LINE}"),
        *(word for tag, path in readonly for word in _share(tag, path, ",readonly=on")),
        *_share("work", work),
    ]


def _share(tag: str, path: Path, more: str = "") -> tuple[str, ...]:
    local = f"local,security_model=none,multidevs=remap{more},id={tag},path={path}"
    return ("-fsdev", local, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}")


def _trouble(said: str) -> str:
    """A console's text -> from the line where the kernel panics or warns of it, if it does: what a register dump or a
    second CPU's trace adds below must not push the reason out of what is shown."""
    panic = re.search(r"^.*(?:Kernel panic|BUG:|Oops:)", said, re.MULTILINE)
    if not panic:
        return said
    lines = said[panic.start() :].splitlines()
    return "\n".join(lines[:REPORT_LINES])


def _tail(what: str, text: str) -> str:
    last = text.strip().splitlines()[-REPORT_LINES:]
    return "\n".join([f"last lines of the {what}:", *(f"  {line}" for line in last)]) if last else f"no {what} output"
