"""The roles of a real exporter: who may do what, and what is left when one of them dies."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.collecting.recording import replay
from exporter.collecting.text import exposition
from exporter.decoders import Names
from tests.daemon import Daemon, running
from tests.kernel.loaded import NOTHING, alive, descriptors, kernel_ids, wait_gone
from tests.kernel.renames import rename, write_config
from tests.waiting import let_collection_expire

O_ACCMODE = 3  # include/uapi/asm-generic/fcntl.h
BACK = 1.0  # seconds within which a killed server answers again
ME = str(os.getpid())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(write_config(tmp_path), tmp_path) as started:
        started.wait_ready()
        yield started


def counted(daemon: Daemon) -> float:
    return daemon.value("ebpf_renames_total", pid=str(os.getpid()))


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def probe_events() -> str:
    """Probes that somebody defined through tracefs: the way that leaves something behind."""
    files = [Path("/sys/kernel/tracing") / name for name in ("kprobe_events", "uprobe_events")]
    return "".join(path.read_text() for path in files if path.exists())


def test_the_server_has_no_rights_and_holds_read_only_maps_only(daemon: Daemon) -> None:
    pid = daemon.server_pid()
    now = status(pid)
    assert now["Uid"].split() == ["65534"] * 4
    assert now["Gid"].split() == ["65534"] * 4
    assert now["Groups"] == ""
    assert {now[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert now["NoNewPrivs"] == "1"
    held = descriptors(pid)
    others = {what for fd, what in held.items() if fd > 2 and "bpf-map" not in what and not what.startswith("socket:")}
    assert others <= {"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "/proc/kallsyms", "/memfd:totals (deleted)",
                      f"/proc/{pid}/statm", os.path.realpath("/sys/fs/cgroup/unified"), "/sys/fs/cgroup"}  # fmt: skip
    maps = [fd for fd, what in held.items() if what == "anon_inode:bpf-map"]
    assert maps
    for fd in maps:
        flags = re.search(r"^flags:\s*(\d+)$", Path(f"/proc/{pid}/fdinfo/{fd}").read_text(), re.MULTILINE)
        assert flags is not None
        assert int(flags[1], 8) & O_ACCMODE == os.O_RDONLY
    assert daemon.value("bpf_exporter_server_unprivileged") == 1
    assert 'rights="no capability"' in daemon.log


def test_only_a_map_with_ttl_comes_writable(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("    metrics:", "    maps: {renames: {ttl: 1h}}\n    metrics:"))
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        pid = daemon.server_pid()
        modes = {}
        for fd, what in descriptors(pid).items():
            if what == "anon_inode:bpf-map":
                text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
                flags, kind = (re.search(rf"^{name}:\s*(\d+)$", text, re.MULTILINE) for name in ("flags", "map_type"))
                assert flags is not None
                assert kind is not None
                modes[int(kind[1])] = int(flags[1], 8) & O_ACCMODE
        assert modes == {1: os.O_RDWR, 6: os.O_RDONLY}  # the hash; the per-CPU array of lost updates


def test_events_are_counted_to_the_number(daemon: Daemon) -> None:
    before = counted(daemon)
    rename(23)
    let_collection_expire()
    assert counted(daemon) - before == 23


def test_a_killed_server_is_back_within_a_second_and_no_count_is_lost(daemon: Daemon) -> None:
    before = counted(daemon)
    times: list[float] = []
    for round_ in range(1, 4):
        rename(7)
        killed = daemon.server_pid()
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        rename(16)
        page = daemon.get()  # the listening socket outlives the server: this request waits, it is not refused
        times.append(time.monotonic() - began)
        assert "bpf_exporter_build_info" in page
        daemon.wait_ready()
        assert daemon.server_pid() != killed
        assert counted(daemon) - before == 23 * round_
    assert min(times) < BACK, times  # a busy machine may make one of them wait
    assert daemon.value("bpf_exporter_server_restarts_total") == 3
    assert "server ended by signal 9" in daemon.log


def test_after_kill_9_of_the_supervisor_nothing_is_attached(daemon: Daemon) -> None:
    ids = kernel_ids(daemon.process.pid)
    assert all(ids.values())
    assert alive(ids) == ids
    server = daemon.server_pid()
    daemon.process.kill()
    daemon.process.wait(5)
    assert wait_gone(ids) == NOTHING
    assert not Path(f"/proc/{server}").exists() or status(server)["State"].startswith("Z")
    assert probe_events() == ""


def test_sigterm_detaches_everything_within_a_second(tmp_path: Path) -> None:
    times: list[float] = []
    while not times or (min(times) >= 1 and len(times) < 3):  # a busy machine may make one of them wait
        with running(write_config(tmp_path), tmp_path) as daemon:
            daemon.wait_ready()
            ids = kernel_ids(daemon.process.pid)
            began = time.monotonic()
            assert daemon.stop() == 0
            times.append(time.monotonic() - began)
        assert wait_gone(ids) == NOTHING
    assert min(times) < 1, times


def test_standard_input_may_be_closed(tmp_path: Path) -> None:
    """A socket or map that got its number would be taken for it: the server died again and again."""
    closed = ("sh", "-c", 'exec "$0" "$@" <&-', sys.executable)
    with running(write_config(tmp_path), tmp_path, python=closed) as daemon:
        daemon.wait_ready()
        assert "bpf_exporter_program_state" in daemon.get()
        assert daemon.log.count("server runs") == 1, daemon.log
        assert os.readlink(f"/proc/{daemon.process.pid}/fd/0") == os.devnull


def test_a_recording_gives_the_same_metrics_without_the_kernel(tmp_path: Path) -> None:
    directory = tmp_path / "recorded"
    with running(write_config(tmp_path), tmp_path, "--record", str(directory)) as daemon:
        daemon.wait_ready()
        rename(23)
        let_collection_expire()
        live = counted(daemon)
        daemon.stop()
    document = json.loads((directory / "renames.json").read_text())
    page = exposition.render(replay(document, Names.open()).collect(), openmetrics=False).decode()
    assert f'ebpf_renames_total{{pid="{ME}"}} {live:.0f}\n' in page


BROKEN = """\
  - name: broken
    code: |
      int on_rename(struct bpf_raw_tracepoint_args *ctx) { return undeclared; }
    attach: [{raw_tracepoint: task_rename, function: on_rename}]
    metrics: [{name: ebpf_broken_total, type: counter, help: Never., map: none}]
"""


def test_one_broken_program_costs_its_own_metrics_only(tmp_path: Path) -> None:
    with running(write_config(tmp_path, BROKEN), tmp_path) as daemon:
        daemon.wait_ready()
        assert daemon.value("bpf_exporter_program_state", program="broken", state="failed") == 1
        assert daemon.value("bpf_exporter_program_state", program="renames", state="running") == 1
        lines = (tmp_path / "config.yaml").read_text().splitlines()
        line = next(number for number, text in enumerate(lines, 1) if "undeclared" in text)
        assert re.search(rf"config\.yaml:{line}:\d+: use of undeclared identifier 'undeclared'", daemon.log)
        assert re.search(rf"config\.yaml:{line}:\d+: use of undeclared identifier &#x27;undeclared", daemon.get("/"))
        assert "Traceback" not in daemon.log


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def maps_bcc(pid: int) -> bool:
    try:
        return "libbcc" in Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("victim", ["loader", "compiler"])
def test_a_child_that_is_killed_while_it_compiles_is_a_state_of_its_program(tmp_path: Path, victim: str) -> None:
    config = write_config(tmp_path)
    for attempt in range(20):  # on a busy machine the compiler can be gone before we look
        with running(config, tmp_path, cache=tmp_path / f"cache{attempt}") as daemon:
            compiling = None
            while compiling is None and not re.search("program (running|failed)", daemon.log):
                assert daemon.process.poll() is None, daemon.log
                pairs = [(child, below) for child in children(daemon.process.pid) for below in children(child)]
                compiling = next((pair for pair in pairs if maps_bcc(pair[1])), None)
            if compiling is None:
                continue
            os.kill(compiling[0 if victim == "loader" else 1], signal.SIGKILL)
            daemon.wait_ready()
            if daemon.value("bpf_exporter_program_state", program="renames", state="running"):
                continue  # it had just been done
            assert daemon.value("bpf_exporter_program_state", program="renames", state="failed") == 1
            assert re.search(r"renames: .*was killed( by SIGKILL)? \(out of memory\?", daemon.log), daemon.log
            assert "reason=killed" in daemon.log
            assert not maps_bcc(compiling[1])  # the compiler does not outlive its loader
            return
    pytest.fail(f"no compiler was seen: {daemon.log}")


def test_a_warm_start_needs_no_bcc(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
    trap = tmp_path / "trap" / "bcc"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise SystemError('bcc was imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(trap.parent)}
    with running(config, tmp_path, environment=environment) as daemon:
        daemon.wait_ready()
        assert re.search(r'program=renames .*how="from cache"', daemon.log)
        rename(23)
        assert counted(daemon) >= 23


def test_a_program_over_the_memory_limit_is_refused_with_its_figure(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text("limits: {map_memory: 64KiB}\n" + config.read_text())
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        assert daemon.value("bpf_exporter_program_state", program="renames", state="failed") == 1
        assert kernel_ids(daemon.process.pid)["map"] == set()
        assert re.search(r"reason=map .*limits.map_memory", daemon.log), daemon.log
