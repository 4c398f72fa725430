"""The whole exporter on this kernel: `run --no-compile` with artifacts that `bpf-exporter compile` made elsewhere for
it, where no bcc can be found; scraped, then killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from exporter.kernel import credentials
from exporter.loading.compiling import compiler
from tests import daemon
from tests.matrix.guest import attaching
from tests.waiting import until

CONFIG = Path(__file__).resolve().parents[1] / "programs" / "config.yaml"


def scraped_then_killed(artifacts: Path) -> dict[str, Any]:
    """{"running": programs, "variants", "compiled": seconds, "calls": of tcp_sendmsg(), "unprivileged", "rights": of
    the server, "llvm": roles that map it, "probes" while it ran, "left" after SIGKILL, "server_alive", "log"}."""
    with (
        tempfile.TemporaryDirectory() as directory,
        bcc_hidden(),
        daemon.running(CONFIG, Path(directory), "--no-compile", cache=artifacts) as exporter,
    ):
        exporter.wait_ready()
        attaching.make_events()
        samples = exporter.samples()
        server = exporter.server_pid()
        now = credentials.read(pid=server)
        found = {
            "running": _labels(samples, "bpf_exporter_program_state", "program", state="running"),
            "variants": _labels(samples, "bpf_exporter_program_info", "variant", program="tcp_rst"),
            "compiled": exporter.value("bpf_exporter_program_compile_seconds"),
            "calls": exporter.value("ebpf_tcp_sendmsg_calls_total"),
            "unprivileged": exporter.value("bpf_exporter_server_unprivileged"),
            "rights": {"effective": sorted(now.effective), "uids": now.uids, "no_new_privs": now.no_new_privs},
            "llvm": [p for p in (server, exporter.process.pid) if "libLLVM" in Path(f"/proc/{p}/maps").read_text()],
            "probes": attaching.probes(),
        }
        os.kill(exporter.process.pid, signal.SIGKILL)
        exporter.process.wait()
        with suppress(AssertionError):
            until(lambda: not attaching.probes()["kprobes"] and not _alive(server), seconds=20, every=0.1)
        return {**found, "left": attaching.probes(), "server_alive": _alive(server), "log": exporter.log[-4000:]}


@contextmanager
def bcc_hidden() -> Iterator[None]:
    """No process of this machine finds bcc meanwhile: an empty directory is mounted over it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert [kind for _, place, kind, *_ in mounts if place == "/"][-1] == "overlay", "this would hide the host's own"
    found = PathFinder.find_spec("bcc", sys.path)
    origin = found.origin if found else None
    assert origin, "python3-bpfcc is not installed: nothing to hide"
    place = str(Path(origin).parent)
    subprocess.run(["mount", "-t", "tmpfs", "hidden", place], check=True)
    try:
        assert compiler.bcc_version() is None
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def _labels(
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, label: str, **having: str
) -> list[str]:
    """Values of a label in the samples of this name that are 1 and have these labels."""
    wanted = set(having.items())
    return sorted(dict(has)[label] for (n, has), value in samples.items() if n == name and value == 1 and wanted <= has)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # nobody here reaps orphans
    except FileNotFoundError:
        return False
