"""`check --btf` on the types of kernels that are booted as well: the variants it names are those that ran there
(`make matrix` writes that table)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import config
from exporter.kernel.btf import KernelBtf
from exporter.loading import other_kernel, target
from exporter.loading.other_kernel import OtherKernel
from exporter.spec import ProgramSpec
from tests.daemon import ROOT
from tests.matrix import kernels

NONE = ""  # skipped there

# What ran, of the bundled programs whose variants differ from kernel to kernel.
RAN = {
    "5.10": {
        "biolatency": "request_disk", "cachestat": "fentry_page", "kfree_skb": NONE, "runqlat": "state",
        "tcp_latency": "fentry", "tcp_retransmit": "sent", "tcp_rst": "fentry", "tcp_sendmsg": "fexit",
        "udp_drops": "fexit",
    },
    "6.1": {
        "biolatency": "queue_disk", "cachestat": "fentry_folio", "kfree_skb": "reason", "runqlat": "__state",
        "tcp_latency": "fentry", "tcp_retransmit": "sent", "tcp_rst": "fentry", "tcp_sendmsg": "fexit",
        "udp_drops": "fexit",
    },
    "6.12": {
        "biolatency": "queue_disk", "cachestat": "fentry_folio", "kfree_skb": "reason", "runqlat": "__state",
        "tcp_latency": "fentry", "tcp_retransmit": "sent", "tcp_rst": "tracepoint", "tcp_sendmsg": "fexit",
        "udp_drops": "tracepoint",
    },
    "7.2": {
        "biolatency": "queue_disk", "cachestat": "fentry_folio", "kfree_skb": "reason", "runqlat": "__state",
        "tcp_latency": "fentry", "tcp_retransmit": "result", "tcp_rst": "tracepoint", "tcp_sendmsg": "fexit",
        "udp_drops": "tracepoint",
    },
    "arm64-6.1": {
        "accept_latency": "kretprobe", "cachestat": "kprobe_folio", "tcp_latency": "kprobe", "tcp_retransmit": "sent",
        "tcp_rst": "kprobe", "tcp_sendmsg": "kretprobe", "udp_drops": NONE,
    },
    "arm64-6.12": {
        "accept_latency": "fexit", "cachestat": "fentry_folio", "tcp_latency": "fentry", "tcp_retransmit": "sent",
        "tcp_rst": "tracepoint", "tcp_sendmsg": "fexit", "udp_drops": "tracepoint",
    },
}  # fmt: skip


def usable(program: ProgramSpec, other: OtherKernel) -> str:
    """The first variant that its demands and places speak for."""
    for variant in program.variants:
        modules = [*program.requires.module, *variant.requires.module]
        answer = other_kernel.all_of(
            lambda: other.requires(program.requires),
            lambda variant=variant: other.requires(variant.requires),  # type: ignore[misc]
            lambda variant=variant, modules=modules: other.attach_points(variant, modules),  # type: ignore[misc]
        )
        if not answer.lacks:
            return variant.name
    return NONE


@pytest.mark.parametrize("version", [series for series in kernels.TESTED if series in RAN])
def test_the_types_alone_tell_which_variant_runs(version: str) -> None:
    kernel = kernels.get(version, kernels.cache_directory())
    with KernelBtf(kernel.btf) as types:
        assert target.arch_of(types) == kernel.architecture.machine
        other = OtherKernel(types, kernel.release, kernel.architecture.machine)
        told = {name: usable(config.load_bundled(name).config.programs[0], other) for name in RAN[version]}
    assert told == RAN[version]


def test_a_helper_that_is_newer_than_the_kernel_makes_it_take_the_next_variant(tmp_path: Path) -> None:
    """bpf_get_func_ret() is of 5.17; the verifier of 5.10 says "unknown func"."""
    kernel = kernels.get("5.10", kernels.cache_directory())
    path = tmp_path / "config.yaml"
    copy = config.load_bundled("accept_latency").config.programs[0]
    assert copy.variants[0].requires.kernel == ">=5.17"
    text = (ROOT / "programs/accept_latency.yaml").read_text().replace('requires: {kernel: ">=5.17"}', "requires: {}")
    (tmp_path / "accept_latency.c").write_text(copy.text)
    path.write_text("programs:\n  - " + "\n    ".join(text.splitlines()) + "\n")
    line = [sys.executable, "-m", "exporter", "check", str(path), "--btf", str(kernel.btf), "--json"]
    done = subprocess.run(
        [*line, "--release", kernel.release], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    said = json.loads(done.stdout)["programs"]
    assert [(verdict["variant"], verdict["state"]) for verdict in said] == [
        ("fexit", "not usable"), ("kretprobe", "used"),
    ]  # fmt: skip
    assert "calls helper 184, which is newer than this kernel" in said[0]["text"]
