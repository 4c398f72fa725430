"""Attach points of a configuration as the loader takes them: files, samples, globs, defines, and what they require."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import config
from exporter.spec import ProgramSpec


def loaded(tmp_path: Path, attach: str, rest: str = "") -> ProgramSpec:
    path = tmp_path / "config.yaml"
    path.write_text(
        "programs:\n  - name: one\n    code: int f(void *ctx) { return 0; }\n    defines: {FILE: libssl.so.3}\n"
        f"    {rest}\n    attach: [{attach}]\n"
        "    metrics: [{name: ebpf_calls_total, type: counter, help: Calls., map: calls}]\n"
    )
    return config.load(path).config.programs[0]


@pytest.mark.parametrize(
    ("point", "kind", "targets"),
    [
        ('{uprobe: "{FILE}:SSL_read", function: f}', "uprobe", ["libssl.so.3:SSL_read"]),
        (
            '{uprobe: ["c:malloc@GLIBC_2.2.5", "c:free+0x4"], function: f}',
            "uprobe",
            ["c:malloc@GLIBC_2.2.5", "c:free+0x4"],
        ),
        ('{uretprobe: "/usr/bin/python3.11:Py*", function: f}', "uretprobe", ["/usr/bin/python3.11:Py*"]),
        ('{uprobe: "c:0x1c2", function: f}', "uprobe", ["c:0x1c2"]),
        ('{uprobe: "stdc++:_ZN3fooEv", function: f}', "uprobe", ["stdc++:_ZN3fooEv"]),
        ('{usdt: "{FILE}:libc:setjmp", function: f}', "usdt", ["libssl.so.3:libc:setjmp"]),
        ('{kprobe: ["tcp_v?_*", "xfs:xfs_*"], function: f}', "kprobe", ["tcp_v?_*", "xfs:xfs_*"]),
        ('{tracepoint: "sched:*", function: f}', "tracepoint", ["sched:*"]),
    ],
)
def test_target_is_taken_as_written(tmp_path: Path, point: str, kind: str, targets: list[str]) -> None:
    (at,) = loaded(tmp_path, point).variants[0].attach
    assert (at.kind, at.targets, at.function, at.period, at.frequency) == (kind, targets, "f", None, None)


@pytest.mark.parametrize(("rate", "period", "frequency"), [("period: 1000", 1000, None), ("frequency: 99", None, 99)])
def test_perf_event_has_its_rate(tmp_path: Path, rate: str, period: int | None, frequency: int | None) -> None:
    (at,) = loaded(tmp_path, f'{{perf_event: [cpu-clock, "1:0"], function: f, {rate}}}').variants[0].attach
    assert (at.targets, at.period, at.frequency) == (["cpu-clock", "1:0"], period, frequency)


def test_architectures_and_modules_are_named_as_the_kernel_names_them(tmp_path: Path) -> None:
    rest = "requires: {arch: [x86_64, arm64], module: nf-conntrack}"
    requires = loaded(tmp_path, "{kprobe: g, function: f}", rest).requires
    assert (requires.arch, requires.module) == (["x86_64", "aarch64"], ["nf_conntrack"])
