"""`check --btf` on types made from this kernel's own: names are changed in the file's strings, and so are not there."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel.btf import VMLINUX, KernelBtf
from exporter.loading.artifact import Function
from exporter.loading.other_kernel import OtherKernel
from exporter.loading.target import arch_of
from exporter.spec import AttachSpec, Requirements, VariantSpec
from tests.daemon import ROOT


def types(tmp_path: Path, *without: str) -> Path:
    """This kernel's BTF, but for these names: each is spelled backwards, so that nothing moves."""
    raw = VMLINUX.read_bytes()
    for name in without:
        word = b"\0" + name.encode() + b"\0"
        assert word in raw, f"this kernel has no {name}"
        raw = raw.replace(word, b"\0" + name.encode()[::-1] + b"\0")
    path = tmp_path / "vmlinux"
    path.write_bytes(raw)
    return path


def check(path: Path, btf: Path, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    line = [sys.executable, "-m", "exporter", "check", str(path), "--btf", str(btf), "--json", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["programs"]


PROGRAM = """\
programs:
  - name: renames
    code: |
      BPF_ARRAY(renames, u64, 1);
      int on_rename(void *ctx) { return 0; }
    variants:
      - name: new
        requires: {kernel: ">=6.10", member: task_struct.comm}
        attach: [{tp_btf: task_rename, function: on_rename}]
      - name: old
        attach: [{fentry: __set_task_comm, function: on_rename}]
      - name: oldest
        attach: [{kprobe: __set_task_comm, function: on_rename}]
    metrics: [{name: renames_total, type: counter, help: Renames., map: renames, labels: []}]
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(PROGRAM)
    return path


def test_the_first_variant_that_nothing_speaks_against_is_the_one_in_use(program: Path, tmp_path: Path) -> None:
    code, said = check(program, types(tmp_path), "--release", "6.12.0-other")
    assert code == 0
    assert [(verdict["variant"], verdict["state"]) for verdict in said] == [
        ("new", "used"), ("old", "compiled"), ("oldest", "compiled"),
    ]  # fmt: skip


def test_each_variant_before_it_says_why_it_is_not(program: Path, tmp_path: Path) -> None:
    code, said = check(program, types(tmp_path, "__set_task_comm"), "--release", "6.1.0-56-amd64")
    assert code == 5  # no variant is left, and that is no matter of `requires` alone
    assert [(verdict["state"], verdict["reason"], verdict["ok"]) for verdict in said] == [
        ("not usable", "requires", True), ("not usable", "missing", False), ("not usable", "missing", False),
    ]  # fmt: skip
    assert said[0]["text"] == "renames: requires kernel >=6.10 (that one is 6.1.0-56-amd64)"
    assert said[2]["text"] == (
        "renames: attach kprobe/__set_task_comm: no such function in this BTF"
        " (inlined? see variants; of a module? then MODULE:FUNC)"
    )


def test_a_release_that_nobody_gave_is_assumed_unless_the_types_are_this_kernels(program: Path, tmp_path: Path) -> None:
    _, said = check(program, types(tmp_path, "__set_task_comm"))
    assert said[0]["state"] == "used"
    assert said[0]["assumed"] == ["kernel >=6.10 (BTF has no release: --release says it)"]
    _, own = check(program, VMLINUX)
    assert own[0]["assumed"] == []


def test_program_that_needs_types_of_a_module_is_not_known_elsewhere(program: Path, tmp_path: Path) -> None:
    text = "{ struct znode *node = ctx; return node->z_id; }"
    program.write_text(PROGRAM.replace("{ return 0; }", text).replace("member: task_struct.comm", "module: zfs"))
    code, said = check(program, types(tmp_path), "--release", "6.12.0-other")
    assert code == 5  # the others name no module, so it is their mistake
    assert [(verdict["state"], verdict["ok"]) for verdict in said] == [
        ("not known", True), ("refused", False), ("refused", False),
    ]  # fmt: skip
    assert said[0]["assumed"] == ["module zfs (a BTF file does not list modules)"]
    assert "incomplete definition of type 'struct znode'" in str(said[0]["text"])


def test_helper_that_the_kernel_does_not_have_is_found_in_the_bytecode(other: OtherKernel) -> None:
    def call(number: int, source: int = 0) -> bytes:
        return struct.pack("<BBhi", 0x85, source << 4, 0, number)

    code = call(1) + call(1000) + call(1001, source=1) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # the third is in the text
    answer = other.helpers([Function("on_it", code, ())])
    assert answer.reason == "verifier"
    assert answer.lacks == ("load: on_it() calls helper 1000, which is newer than this kernel (bpf-helpers(7))",)


def test_the_architecture_is_read_from_the_types(program: Path, tmp_path: Path) -> None:
    with KernelBtf(VMLINUX) as own:
        assert arch_of(own) == os.uname().machine
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[os.uname().machine]
    line = [sys.executable, "-m", "exporter", "check", str(program), "--btf", str(VMLINUX), "--arch", other]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 2
    wanted = f"bpf-exporter check: --btf {VMLINUX}: these are the types of {os.uname().machine}, not of {other}"
    assert wanted in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--btf", "config.yaml"], "--btf config.yaml: read BTF config.yaml: not a BTF file"),
        (["--btf", str(VMLINUX), "--release", "mainline"], "--release: kernel release 'mainline' does not start with"),
        (["--btf", str(VMLINUX), "--load"], "--load is for this kernel, --btf for another: one of them"),
    ],
)
def test_what_is_no_other_kernel_is_a_mistake_in_the_command(program: Path, arguments: list[str], text: str) -> None:
    line = [sys.executable, "-m", "exporter", "check", "config.yaml", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        line, capture_output=True, text=True, cwd=program.parent, env=environment, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"bpf-exporter check: {text}" in done.stderr


@pytest.fixture
def other(tmp_path: Path) -> Iterator[OtherKernel]:
    """6.1 for arm64, without tcp:tcp_send_reset."""
    with KernelBtf(types(tmp_path, "btf_trace_tcp_send_reset", "trace_event_raw_tcp_send_reset")) as opened:
        yield OtherKernel(opened, "6.1.0", "aarch64")


@pytest.mark.parametrize(
    ("demand", "lacks", "assumed"),
    [
        ({"kernel": ">=6.1, <6.2"}, "", ""),
        ({"kernel": ">=6.2"}, "requires kernel >=6.2 (that one is 6.1.0)", ""),
        ({"arch": ["aarch64"]}, "", ""),
        ({"arch": ["x86_64"]}, "requires arch x86_64 (that kernel's is aarch64)", ""),
        ({"member": ["sock.__sk_common.skc_family"]}, "", ""),
        ({"member": ["sock.nobody"]}, "requires member sock.nobody (not in this BTF)", ""),
        ({"module": ["xfs"]}, "", "module xfs (a BTF file does not list modules)"),
        (
            {"module": ["zfs"], "member": ["zfsvfs.z_os"]},
            "",
            "module zfs (a BTF file does not list modules);"
            " member zfsvfs.z_os (not in this BTF, perhaps in that of zfs)",
        ),
        ({"tracepoint_field": ["skb:kfree_skb.location"]}, "", ""),
        ({"tracepoint_field": ["sched:sched_process_exec.filename"]}, "", ""),  # of varying length
        (
            {"tracepoint_field": ["skb:kfree_skb.nobody"]},
            "requires tracepoint_field skb:kfree_skb.nobody (not in this BTF's struct of the event)",
            "",
        ),
        (
            {"tracepoint_field": ["tcp:tcp_send_reset.reason"]},
            "requires tracepoint_field tcp:tcp_send_reset.reason"
            " (no such tracepoint in this BTF; a module's would be in the module's own)",
            "",
        ),
        (  # shares the record of tcp_event_sk with others
            {"tracepoint_field": ["tcp:tcp_destroy_sock.nobody"]},
            "requires tracepoint_field tcp:tcp_destroy_sock.nobody"
            " (it shares its record with other events, and none of tcp has such a field)",
            "",
        ),
        (
            {"tracepoint_field": ["sched:sched_wakeup.pid"]},
            "",
            "tracepoint_field sched:sched_wakeup.pid (it shares its record with other events: perhaps that of",
        ),
    ],
)
def test_demand_is_met_or_not_or_not_to_be_told(
    other: OtherKernel, demand: dict[str, object], lacks: str, assumed: str
) -> None:
    answer = other.requires(Requirements.model_validate(demand))
    assert "; ".join(answer.lacks) == lacks
    if assumed.endswith("of"):
        assert "; ".join(answer.assumed).startswith(assumed)
    else:
        assert "; ".join(answer.assumed) == assumed


@pytest.mark.parametrize(
    ("kind", "target", "lacks", "assumed"),
    [
        ("kprobe", "tcp_sendmsg", "", ""),
        ("kprobe", "tcp_sendmessage", "no such function in this BTF", ""),
        ("kretprobe", "nf_conntrack:nf_ct_nobody", "", "in module nf_conntrack, or nowhere"),
        ("kprobe", "tcp_send*", "", "what a glob names is found where it runs"),
        ("kprobe", "sys_nobody", "", "this BTF has no such system call by this name"),
        ("fentry", "tcp_sendmsg", "attach fentry/tcp_sendmsg: arm64 has it since 6.4: use a kprobe", ""),
        ("raw_tracepoint", "task_rename", "", ""),
        ("tp_btf", "task_rename", "", ""),
        ("tracepoint", "task:task_rename", "", ""),
        ("tracepoint", "task:nobody", "attach tracepoint/task:nobody: no such tracepoint in this BTF", ""),
        ("raw_tracepoint", "tcp_send_reset", "attach raw_tracepoint/tcp_send_reset: no such tracepoint", ""),
        ("tracepoint", "syscalls:sys_enter_openat", "", "events of single system calls are not in BTF"),
        ("uprobe", "c:getppid", "", "a file of that host"),
        ("perf_event", "cycles", "", "what its CPUs count is not in BTF"),
    ],
)
def test_place_is_there_or_not_or_not_to_be_told(
    other: OtherKernel, kind: str, target: str, lacks: str, assumed: str
) -> None:
    at = AttachSpec(kind=kind, targets=[target], function="on_it")
    answer = other.attach_points(VariantSpec(attach=[at]), [])
    assert bool(answer.lacks) == bool(lacks)
    assert lacks in "".join(answer.lacks)
    assert bool(answer.assumed) == bool(assumed)
    assert assumed in "".join(answer.assumed)


def test_what_may_be_absent_speaks_against_nothing_unless_nothing_is_left(other: OtherKernel) -> None:
    absent = AttachSpec(kind="kprobe", targets=["nobody"], function="on_it", optional=True)
    there = AttachSpec(kind="kprobe", targets=["tcp_sendmsg"], function="on_it")
    assert not other.attach_points(VariantSpec(attach=[absent, there]), []).lacks
    assert other.attach_points(VariantSpec(attach=[absent]), []).lacks


def test_a_module_that_the_program_asks_for_may_have_what_the_kernel_lacks(other: OtherKernel) -> None:
    at = AttachSpec(kind="kprobe", targets=["xfs_nobody"], function="on_it")
    assert other.attach_points(VariantSpec(attach=[at]), []).lacks
    assert not other.attach_points(VariantSpec(attach=[at]), ["xfs"]).lacks
    assert other.attach_points(VariantSpec(attach=[at]), ["xfs"]).assumed
