"""Ids of cgroups as programs of this kernel see them, in version 2 and in a controller of version 1."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.decoders import Names, chain
from exporter.kernel import bpf, cgroups
from exporter.program import Type
from exporter.spec import DecodeStep
from tests.kernel.loaded import Load
from tests.kernel.programs import point, spec

TEXT = """\
struct seen {
    u64 default_hierarchy;
    u64 pids;
};
BPF_HASH(seen, u32, struct seen, 4096);

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    struct seen value = {.default_hierarchy = bpf_get_current_cgroup_id()};
    u32 pid = bpf_get_current_pid_tgid() >> 32;

    struct cgroup_subsys_state *css = 0;
    struct cgroup *group = 0;
    struct kernfs_node *node = 0;

    bpf_probe_read_kernel(&css, sizeof(css), &task->cgroups->subsys[pids_cgrp_id]);
    bpf_probe_read_kernel(&group, sizeof(group), &css->cgroup);
    bpf_probe_read_kernel(&node, sizeof(node), &group->kn);
    bpf_probe_read_kernel(&value.pids, sizeof(value.pids), &node->id);
    seen.update(&pid, &value);
    return 0;
}
"""
NAME = f"bpf-exporter-test-v1-{os.getpid()}.service"


@pytest.fixture
def places() -> Iterator[tuple[Path, Path]]:
    """A cgroup of our own in version 2, and another one where the controller `pids` is."""
    proc = Path("/proc")
    unified = cgroups.find_mount(proc)
    pids = cgroups.find_controllers(proc).get("pids")
    assert unified is not None, "no cgroup2 mounted"
    if pids is None:  # a host of version 2 alone has it there
        (unified / "cgroup.subtree_control").write_text("+pids")
    made = (unified / NAME, (pids or unified) / f"of-{NAME}")
    for place in made:
        place.mkdir()
    yield made
    for place in made:
        place.rmdir()


def test_each_hierarchy_has_its_own_ids_and_names(load: Load, places: tuple[Path, Path]) -> None:
    outcome, descriptors = load(spec(TEXT, [point("raw_tracepoint", "sched_process_exit", "on_exit")]))
    assert outcome.state == "running", outcome.text
    joins = "import os, sys\nfor place in sys.argv[1:]:\n    open(place + '/cgroup.procs', 'w').write(str(os.getpid()))"
    in_both = cgroups.find_controllers(Path("/proc")).get("pids") is not None
    wanted = places if in_both else places[1:]
    child = subprocess.Popen([sys.executable, "-c", joins, *map(str, wanted)])
    assert child.wait(60) == 0
    raw = bpf.map_lookup(descriptors.readonly["seen"], struct.pack("=I", child.pid), 16)
    assert raw is not None
    default, pids = raw[:8], raw[8:]
    names = Names.open()
    field = Type("int", "u64", 8)
    in_default = chain(field, [DecodeStep(name="cgroup"), DecodeStep(name="systemd_unit")]).bind(names)
    in_pids = chain(field, [DecodeStep(name="cgroup", argument="pids")]).bind(names)
    assert in_default(default) == (NAME if in_both else f"of-{NAME}")
    assert in_pids(pids) == f"/of-{NAME}"
    names.close()
