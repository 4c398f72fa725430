"""Lookups of the host on files made for the purpose: roots, clocks and limits are arguments."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.decoders import Names, chain, check_chain
from exporter.kernel import symbols
from exporter.kernel.cgroups import Cgroups, find_controllers, find_mount
from exporter.kernel.credentials import read
from exporter.kernel.sockets import listening_ports
from exporter.kernel.symbols import Symbols
from exporter.program import Type
from exporter.spec import DecodeStep


class Clock:
    """Shows `now`; each look at it takes `look` seconds, so what is measured with it takes that long."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.look = 0.0

    def __call__(self) -> float:
        self.now += self.look
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000040 t local_one
ffffffff81000100 W weak_one
ffffffff81000200 D some_data
ffffffff81000300 T behind_data
ffffffffc0001000 t mod_init\t[beta]
ffffffffc0000000 t mod_open\t[alpha]
ffffffffc0000800 d mod_data\t[alpha]
"""


def symbols_in(proc: Path) -> Symbols:
    return Symbols(os.open(proc / "kallsyms", os.O_RDONLY))


@pytest.fixture
def kallsyms(tmp_path: Path) -> Path:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    return tmp_path


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0, None),
        (0xFFFFFFFF80FFFFFF, None),
        (0xFFFFFFFF81000000, "_text"),
        (0xFFFFFFFF8100003F, "_text"),
        (0xFFFFFFFF81000040, "local_one"),
        (0xFFFFFFFF810001FF, "weak_one"),
        (0xFFFFFFFF81000200, None),
        (0xFFFFFFFF81000300, "behind_data"),
        (0xFFFFFFFF810FFFFF + 0x300, "behind_data"),
        (0xFFFFFFFF81100000 + 0x300, None),
        (0xFFFFFFFFC0000010, "mod_open"),
        (0xFFFFFFFFC0000900, None),
        (0xFFFFFFFFC0001000, "mod_init"),
        ((1 << 64) - 1, None),
        (1 << 64, None),
        (-1, None),
    ],
)
def test_symbol_is_the_function_that_holds_the_address(kallsyms: Path, address: int, name: str | None) -> None:
    assert symbols_in(kallsyms).name(address) == name


def test_symbols_are_whole_wherever_a_read_ends(kallsyms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols, "_CHUNK", 7)
    assert symbols_in(kallsyms).name(0xFFFFFFFF81000100) == "weak_one"


def test_symbols_are_read_again_at_most_once_a_minute(kallsyms: Path, clock: Clock) -> None:
    names = Symbols(os.open(kallsyms / "kallsyms", os.O_RDONLY), clock)
    late = 0xFFFFFFFFC0FF0000
    assert names.name(late) is None
    with (kallsyms / "kallsyms").open("a") as file:
        file.write(f"{late:x} t late_function\t[late]\n")
    clock.now += 59
    assert names.name(late) is None
    clock.now += 1
    assert names.name(late) == "late_function"
    names.close()


def test_symbols_without_the_right_to_see_them_have_no_names(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T _text\n0000000000000000 T startup_64\n")
    assert symbols_in(tmp_path).name(0x1000) is None
    assert Names.open(tmp_path / "missing").symbols.name(0x1000) is None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Stands for a cgroup2 mount: ids are inode numbers there as here."""
    (tmp_path / "tree/system.slice/cron.service").mkdir(parents=True)
    (tmp_path / "tree/cgroup.procs").touch()
    return tmp_path / "tree"


def opened(tree: Path, clock: Clock, most: int = 100) -> Cgroups:
    return Cgroups(os.open(tree, os.O_RDONLY | os.O_DIRECTORY), most, clock)


def test_cgroup_paths_start_at_the_mount(tree: Path, clock: Clock) -> None:
    groups = opened(tree, clock)
    assert groups.path(tree.stat().st_ino) == "/"
    assert groups.path((tree / "system.slice").stat().st_ino) == "/system.slice"
    assert groups.path((tree / "system.slice/cron.service").stat().st_ino) == "/system.slice/cron.service"
    assert groups.path((tree / "cgroup.procs").stat().st_ino) is None
    groups.close()
    groups.close()


@pytest.mark.parametrize(("walk", "pause"), [(0.001, 0.02), (0.01, 0.2), (0.5, 1.0)])
def test_walks_take_a_twentieth_of_the_time_or_one_a_second(
    tree: Path, clock: Clock, walk: float, pause: float
) -> None:
    groups = opened(tree, clock)
    clock.look = walk
    assert groups.path(1) is None
    walked = clock.now - walk  # when it began
    clock.look = 0.0
    (tree / "new.scope").mkdir()
    new = (tree / "new.scope").stat().st_ino
    clock.now = walked + pause * 0.99
    assert groups.path(new) is None
    clock.now = walked + pause * 1.01
    assert groups.path(new) == "/new.scope"


def test_name_of_a_cgroup_outlives_it(tree: Path, clock: Clock) -> None:
    groups = opened(tree, clock)
    cron = (tree / "system.slice/cron.service").stat().st_ino
    assert groups.path(1) is None  # a walk for another one learns it
    (tree / "system.slice/cron.service").rename(tree.parent / "gone.service")
    clock.now += 5
    assert groups.path(2) is None  # and one that no longer finds it keeps it
    assert groups.path(cron) == "/system.slice/cron.service"


def test_longest_unused_names_go_first(tmp_path: Path, clock: Clock) -> None:
    tree, gone = tmp_path / "tree", tmp_path / "gone"  # moved, not removed: this file system uses inodes again
    tree.mkdir()
    gone.mkdir()
    ids = []
    for number in range(3):
        (tree / f"{number}.scope").mkdir()
        ids.append((tree / f"{number}.scope").stat().st_ino)
    groups = opened(tree, clock, most=4)  # the root and the three
    assert groups.path(ids[0]) == "/0.scope"
    assert groups.path(ids[1]) == "/1.scope"
    for number in range(3):
        (tree / f"{number}.scope").rename(gone / f"{number}.scope")
    for number in (3, 4):
        clock.now += 1
        (tree / f"{number}.scope").mkdir()
        assert groups.path((tree / f"{number}.scope").stat().st_ino) == f"/{number}.scope"
    assert [groups.path(number) for number in ids] == [None, "/1.scope", None]


def test_cgroup_is_found_in_a_tree_larger_than_what_is_kept(tmp_path: Path, clock: Clock) -> None:
    for number in range(9):
        (tmp_path / f"{number}.scope").mkdir()
    groups = opened(tmp_path, clock, most=2)
    clock.look = 0.1  # long enough for a pause between walks
    for number in range(9):
        clock.now += 1
        inode = (tmp_path / f"{number}.scope").stat().st_ino
        assert [groups.path(inode), groups.path(inode)] == [f"/{number}.scope"] * 2  # the second time without a walk


MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:38 /inner /part rw,relatime shared:9 - cgroup2 cgroup2 rw
41 31 0:38 / /sys/fs/my\\040cgroup rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("lines", "mount"),
    [
        (MOUNTS, Path("/sys/fs/my cgroup")),
        ("".join(MOUNTS.splitlines(True)[:3]), Path("/part")),
        ("".join(MOUNTS.splitlines(True)[:2]), None),
        ("", None),
    ],
)
def test_cgroup2_mount_is_the_one_of_the_whole_tree(tmp_path: Path, lines: str, mount: Path | None) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(lines)
    assert find_mount(tmp_path) == mount


def test_host_without_cgroup2_knows_no_cgroup(tmp_path: Path) -> None:
    assert find_mount(tmp_path) is None
    assert Cgroups(None).path(1) is None
    assert Cgroups(None, mount=tmp_path / "none").path(1) is None


VERSION_1 = """\
31 23 0:28 / {0} rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {0}/systemd rw shared:5 - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd
33 31 0:30 / {0}/cpu,cpuacct rw shared:6 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 /inner {0}/part rw - cgroup cgroup rw,pids
35 31 0:31 / {0}/pids rw - cgroup cgroup rw,pids
"""
HYBRID = VERSION_1 + "36 31 0:32 / {0}/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = "0123456789ab" + "c" * 52


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """The directories of such a host: a container in every hierarchy of version 1, a unit in those systemd uses."""
    for hierarchy in ("systemd", "cpu,cpuacct", "part", "pids", "unified"):
        (tmp_path / "cgroup" / hierarchy).mkdir(parents=True)
    for hierarchy in ("systemd", "cpu,cpuacct", "pids"):
        (tmp_path / "cgroup" / hierarchy / "docker" / CONTAINER).mkdir(parents=True)
    for hierarchy in ("systemd", "pids", "unified"):
        (tmp_path / "cgroup" / hierarchy / "system.slice/docker.service").mkdir(parents=True)
    return tmp_path / "cgroup"


def host(version_1: Path, mounts: str) -> Names:
    proc = version_1.parent / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/mountinfo").write_text(mounts.format(version_1))
    return Names.open(proc, version_1.parent, root=version_1.parent)


def label(names: Names, place: Path, *steps: DecodeStep) -> str | None:
    return chain(Type("int", "u64", 8), list(steps)).bind(names)(place.stat().st_ino.to_bytes(8, "little"))


def test_controllers_of_version_1_are_found_where_the_whole_hierarchy_is(version_1: Path) -> None:
    host(version_1, VERSION_1).close()
    assert find_controllers(version_1.parent / "proc") == {
        "name=systemd": version_1 / "systemd",
        "cpu": version_1 / "cpu,cpuacct",
        "cpuacct": version_1 / "cpu,cpuacct",
        "pids": version_1 / "pids",
    }


def test_hybrid_host_finds_version_2_beside_the_controllers(version_1: Path) -> None:
    names = host(version_1, HYBRID)
    unit = version_1 / "unified/system.slice/docker.service"
    assert label(names, unit, DecodeStep(name="cgroup"), DecodeStep(name="systemd_unit")) == "docker.service"
    names.close()


def test_host_of_version_1_alone_knows_ids_of_its_controllers(version_1: Path) -> None:
    names = host(version_1, VERSION_1)
    container, unit = version_1 / "pids/docker" / CONTAINER, version_1 / "pids/system.slice/docker.service"
    by_pids = DecodeStep(name="cgroup", argument="pids")
    assert label(names, container, by_pids) == f"/docker/{CONTAINER}"
    assert label(names, container, by_pids, DecodeStep(name="container")) == "0123456789ab"
    assert label(names, unit, by_pids, DecodeStep(name="systemd_unit")) == "docker.service"
    assert label(names, version_1 / "systemd", DecodeStep(name="cgroup", argument="name=systemd")) == "/"
    assert label(names, container, DecodeStep(name="cgroup")) == "unknown"  # no version 2
    assert label(names, container, DecodeStep(name="cgroup", argument="memory")) == "unknown"  # not mounted
    names.close()


def test_controller_that_version_1_does_not_have_is_looked_for_in_version_2(version_1: Path) -> None:
    names = host(version_1, HYBRID)
    unit = version_1 / "unified/system.slice/docker.service"
    assert label(names, unit, DecodeStep(name="cgroup", argument="memory")) == "/system.slice/docker.service"
    names.close()


def test_argument_of_cgroup_is_a_controller() -> None:
    assert check_chain([DecodeStep(name="cgroup", argument="pids")]) == []
    for wrong in ("", "a b", 3, "name="):
        assert "a controller of version 1" in check_chain([DecodeStep(name="cgroup", argument=wrong)])[0]


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TAIL = " 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Processes 1 and 2 in one network namespace, 3 in another, 4 just gone."""
    (tmp_path / "sys").mkdir()
    for namespace in ("first", "second"):
        (tmp_path / namespace).touch()
    for pid, namespace in (("1", "first"), ("2", "first"), ("3", "second")):
        (tmp_path / pid / "ns").mkdir(parents=True)
        (tmp_path / pid / "ns/net").symlink_to(tmp_path / namespace)
        (tmp_path / pid / "net").mkdir()
        ssh = "   0: 00000000:0016 00000000:0000 0A" + TAIL
        live = "   1: 0100007F:1F90 0100007F:0016 01" + TAIL
        (tmp_path / pid / "net/tcp").write_text(HEAD + ssh + live)
    v6 = "   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A" + TAIL
    (tmp_path / "3/net/tcp6").write_text(HEAD + v6 + v6)
    (tmp_path / "4").mkdir()
    return tmp_path


def test_listening_ports_are_counted_once_a_namespace(proc: Path) -> None:
    assert listening_ports(proc) == {22: 2, 443: 2}


def test_credentials_without_a_line_name_it(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tx\nUid:\t0\t0\t0\t0\n")
    with pytest.raises(ValueError, match="/self/status has no line 'Gid'"):
        read(tmp_path)
