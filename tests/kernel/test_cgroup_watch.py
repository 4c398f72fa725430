"""Cgroups that nobody asked for while they lived: learned as they are made, in this kernel's own hierarchy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel import cgroup_watch, cgroups
from exporter.kernel.cgroups import Cgroups
from tests.daemon import running
from tests.waiting import until

MOUNT = cgroups.find_mount(Path("/proc"))
NAME = f"bpf-exporter-test-watch-{os.getpid()}"


@pytest.fixture
def place() -> Iterator[Path]:
    """A cgroup of our own, whatever is in it taken away with it."""
    assert MOUNT is not None, "no cgroup2 mounted"
    top = MOUNT / NAME
    top.mkdir()
    yield top
    for path in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        path.rmdir()
    top.rmdir()


@pytest.fixture
def groups(place: Path) -> Iterator[Cgroups]:
    opened = Cgroups(None, mount=MOUNT)
    opened._next_walk = float("inf")  # no walk finds what the watch has missed
    opened.watch()
    until(lambda: opened.path(place.stat().st_ino) == f"/{NAME}")
    yield opened
    opened.close()


def made(path: Path) -> int:
    path.mkdir()
    return path.stat().st_ino


def test_what_is_there_is_known_without_a_walk(groups: Cgroups, place: Path) -> None:
    assert groups.path(place.stat().st_ino) == f"/{NAME}"
    assert MOUNT is not None
    assert groups.path(MOUNT.stat().st_ino) == "/"


def test_cgroup_that_is_gone_before_it_is_asked_for_has_its_name(groups: Cgroups, place: Path) -> None:
    short = made(place / "short.scope")
    until(lambda: short in groups._paths)
    (place / "short.scope").rmdir()
    assert groups.path(short) == f"/{NAME}/short.scope"


def test_cgroups_made_at_once_inside_each_other_are_all_learned(groups: Cgroups, place: Path) -> None:
    ids = [made(place / "a"), made(place / "a/b"), made(place / "a/b/c")]
    until(lambda: all(each in groups._paths for each in ids))
    assert [groups.path(id_) for id_ in ids] == [f"/{NAME}/a", f"/{NAME}/a/b", f"/{NAME}/a/b/c"]
    below = made(place / "a/b/c/d")
    until(lambda: groups.path(below) == f"/{NAME}/a/b/c/d")


def test_watches_end_with_their_cgroups(groups: Cgroups, place: Path) -> None:
    watch = groups._watch
    assert watch is not None

    def below() -> int:
        return sum(path.startswith(f"/{NAME}/") for path in list(watch._watches))

    def told() -> int:
        return Path(f"/proc/self/fdinfo/{watch._inotify}").read_text().count("inotify wd:")

    for number in range(23):
        made(place / f"{number}.scope")
    until(lambda: below() == 23)
    for number in range(23):
        (place / f"{number}.scope").rmdir()
    until(lambda: below() == 0)
    until(lambda: told() == len(watch._watches) == len(watch._paths))


def test_watches_are_bounded_and_what_is_beyond_is_left_to_walks(place: Path) -> None:
    assert MOUNT is not None
    root = os.open(MOUNT, os.O_RDONLY | os.O_DIRECTORY)
    learned: dict[int, str] = {}
    watch = cgroup_watch.CgroupWatch(root, learned.__setitem__, most=1)
    inner = made(place / "inner")
    until(lambda: place.stat().st_ino in learned)
    assert len(watch._paths) == 1
    watch.close()
    os.close(root)
    assert learned[MOUNT.stat().st_ino] == "/"
    assert inner not in learned


def test_closing_gives_everything_back(place: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    opened = Cgroups(None, mount=MOUNT)
    opened.watch()
    opened.watch()
    opened.close()
    opened.close()
    assert set(os.listdir("/proc/self/fd")) == before


PROGRAM = """\
programs:
  - name: renames
    code: |
      BPF_HASH(renames, u64, u64, 4096);
      int on_rename(void *ctx)
      {
          u64 cgroup = bpf_get_current_cgroup_id(), zero = 0;
          add(renames.lookup_or_try_init(&cgroup, &zero), 1, LOST(renames));
          return 0;
      }
    attach: [{raw_tracepoint: task_rename, function: on_rename}]
    metrics:
      - name: ebpf_renames_total
        type: counter
        help: Renames by cgroup.
        map: renames
        labels: [{name: unit, field: key, decode: [cgroup, systemd_unit]}]
"""
JOIN = """\
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
open("/proc/self/comm", "w").write("renamed")
"""


def test_unit_that_lived_between_two_scrapes_has_its_name(tmp_path: Path) -> None:
    assert MOUNT is not None
    (tmp_path / "config.yaml").write_text(PROGRAM)
    with running(tmp_path / "config.yaml", tmp_path) as daemon:
        daemon.wait_ready()
        daemon.get()
        held = [os.readlink(fd) for fd in Path(f"/proc/{daemon.server_pid()}/fd").iterdir()]
        assert "anon_inode:inotify" in held
        for attempt in range(10):  # a busy machine may not let the thread look in time
            name = f"{NAME}-{attempt}.service"
            (MOUNT / name).mkdir()
            subprocess.run([sys.executable, "-c", JOIN, str(MOUNT / name)], check=True)
            time.sleep(0.2 * (attempt + 1))
            (MOUNT / name).rmdir()
            if daemon.value("ebpf_renames_total", unit=name):
                return
        pytest.fail(daemon.get())
