"""A host that lacks something, as a real exporter meets it: in a mount namespace where that is taken away for real.

What is degraded says so, and the rest runs. Elsewhere: a cgroup tree of version 1 (test_cgroups_v1.py), kernels that
lack attach kinds (tests/matrix), damaged and foreign entries of a cache (tests/unit/loading/test_artifact.py).
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.daemon import Daemon, running
from tests.kernel.renames import rename, write_config
from tests.waiting import let_collection_expire

TRACEPOINT = """\
  - name: format
    code: |
      BPF_ARRAY(formats, u64, 1);
      int on_format(void *ctx) { return 0; }
    attach: [{tracepoint: "task:task_rename", function: on_format}]
    metrics: [{name: ebpf_formats, type: gauge, help: None., map: formats, labels: []}]
"""


@contextlib.contextmanager
def without(directory: Path, *commands: str, arguments: Sequence[str] = (), cache: Path | None = None,
            more: str = "") -> Iterator[Daemon]:  # fmt: skip
    """An exporter in a mount namespace of its own, after these commands were run in it."""
    script = " && ".join([*commands, 'exec "$0" "$@"'])
    python = ("unshare", "--mount", "sh", "-ec", script, sys.executable)
    with running(write_config(directory, more), directory, *arguments, cache=cache, python=python) as daemon:
        daemon.wait_ready()
        yield daemon
        assert "Traceback" not in daemon.log
        assert daemon.log.count("server runs") == 1, daemon.log


def counts(daemon: Daemon) -> bool:
    before = daemon.value("ebpf_renames_total")
    rename(23)
    let_collection_expire()
    return daemon.value("ebpf_renames_total") - before >= 23


def test_on_a_full_disk_programs_run_and_the_log_says_what_is_not_kept(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    fill = (
        f"mount -t tmpfs -o size=64k,mode=700 full {full} && mkdir {full}/state && (cat /dev/zero > {full}/all || true)"
    )
    arguments = ("--state.dir", str(full / "state"))
    with without(tmp_path, fill, arguments=arguments, cache=full / "cache") as daemon:
        assert daemon.state("renames") == "running"
        assert counts(daemon)
        assert daemon.value("bpf_exporter_quarantine_armed") == 0
        for what in ("crash record", "kernel headers", "artifact"):
            assert re.search(f"{what} not kept.*No space left on device", daemon.log), daemon.log


def test_a_cache_that_cannot_be_written_is_no_reason_not_to_run(tmp_path: Path) -> None:
    place = tmp_path / "read-only"
    place.mkdir()
    mount = f"mount -t tmpfs -o ro,mode=700 none {place}"
    arguments = ("--state.dir", str(place / "state"))
    with without(tmp_path, mount, arguments=arguments, cache=place / "cache") as daemon:
        assert daemon.state("renames") == "running"
        assert counts(daemon)
        assert re.search("compiled programs are not kept: .*Read-only file system", daemon.log)
        assert re.search("crash record not kept: .*Read-only file system", daemon.log)


def test_a_poisoned_cache_is_found_out_and_compiled_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with running(write_config(tmp_path), tmp_path, cache=cache) as daemon:
        daemon.wait_ready()
    (entry,) = cache.glob("*.json")
    document = json.loads(entry.read_text())
    function = document["artifact"]["functions"][0]
    function["instructions"] = function["instructions"][::-1]
    entry.write_text(json.dumps(document))
    with running(write_config(tmp_path), tmp_path, cache=cache) as daemon:
        daemon.wait_ready()
        assert "artifact damaged; it is compiled again" in daemon.log
        assert re.search('program=renames .*how="compiled in', daemon.log)
        assert counts(daemon)
    with running(write_config(tmp_path), tmp_path, cache=cache) as daemon:
        daemon.wait_ready()
        assert re.search('program=renames .*how="from cache"', daemon.log)


@pytest.mark.parametrize(
    "command",
    ["mount --bind /dev/null /proc/kallsyms", "mount -t tmpfs none /sys/fs/bpf", "mount -t tmpfs none /sys/fs/cgroup"],
    ids=["kallsyms", "bpffs", "cgroups"],
)
def test_what_the_program_does_not_need_may_be_missing(tmp_path: Path, command: str) -> None:
    with without(tmp_path, command) as daemon:
        assert daemon.state("renames") == "running"
        assert counts(daemon)


def test_without_tracefs_what_needs_it_says_how_to_mount_it(tmp_path: Path) -> None:
    debug = "/sys/kernel/debug"  # tracefs is found there too
    hide = ("mount -t tmpfs none /sys/kernel/tracing", f"{{ [ ! -d {debug} ] || mount -t tmpfs none {debug}; }}")
    with without(tmp_path, *hide, more=TRACEPOINT) as daemon:
        assert (daemon.state("format"), daemon.state("renames")) == ("failed", "running")
        assert re.search(r"format: attach tracepoint/task:task_rename: .*mount -t tracefs", daemon.log)
        assert counts(daemon)


def test_without_types_of_the_kernel_a_program_fails_and_says_why(tmp_path: Path) -> None:
    with without(tmp_path, "mount -t tmpfs none /sys/kernel/btf") as daemon:
        assert daemon.state("renames") in ("failed", "running")  # running by installed kernel headers
        if daemon.state("renames") == "failed":
            assert "renames: find kernel types: there is no /sys/kernel/btf/vmlinux" in daemon.log
        assert "bpf_exporter_build_info" in daemon.get()
