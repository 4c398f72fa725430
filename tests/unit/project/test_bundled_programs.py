"""The programs that come with the exporter: entries without a warning, and pages that speak of what they hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter import config
from exporter.commands import programs

ROOT = Path(__file__).resolve().parents[3]
NAMES = config.bundled.names(config.bundled_dir())
PAGE = (ROOT / "docs/programs.md").read_text()


def test_the_programs_of_the_example_are_there() -> None:
    assert {"tcp_latency", "tcp_rst", "tcp_sendmsg"} <= set(NAMES)


def test_the_first_page_says_how_many_there_are() -> None:
    assert f"{len(NAMES)} [programs](docs/programs.md) come ready" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_entry_has_neither_mistake_nor_warning(name: str) -> None:
    program = config.load_bundled(name, strict=True).config.programs[0]
    assert program.name == name
    assert all(metric.name.startswith("ebpf_") for metric in program.metrics)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_of_an_attach_point_is_in_the_c_text(name: str) -> None:
    program = config.load_bundled(name).config.programs[0]
    defined = set(re.findall(r"^(?:int |BPF_PROG\()(\w+)", program.text, re.MULTILINE))
    wanted = {point.function for variant in program.variants for point in variant.attach}
    assert wanted == defined


@pytest.mark.parametrize("name", NAMES)
def test_page_names_every_metric_label_and_variant(name: str) -> None:
    program = config.load_bundled(name).config.programs[0]
    section = re.split(rf"^## {name}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    for metric in program.metrics:
        assert f"`{metric.name}`" in section
        assert all(f"`{label.name}`" in section for label in metric.labels or ())
    assert all(f"| {variant.name} |" in section for variant in program.variants)


@pytest.mark.parametrize("name", NAMES)
def test_c_text_names_no_header_and_no_define_that_the_entry_lacks(name: str) -> None:
    program = config.load_bundled(name).config.programs[0]
    assert "#include" not in program.text
    assert set(re.findall(r"^#ifndef (\w+)", program.text, re.MULTILINE)) <= set(program.defines)


def test_the_example_holds_with_its_commented_program_taken_in(tmp_path: Path) -> None:
    text = (ROOT / "config.example.yaml").read_text()
    head, mark, tail = text.partition("  # - name: execs\n")
    taken_in = head + re.sub(r"^  # ?", "  ", mark + tail, flags=re.MULTILINE)
    file = tmp_path / "config.yaml"
    file.write_text(taken_in)
    loaded = config.load(file, strict=True, bundled=config.bundled_dir()).config
    assert [program.name for program in loaded.programs] == ["tcp_rst", "tcp_sendmsg", "tcp_latency", "execs"]


def test_a_program_is_explained_with_all_that_it_requires(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.c").write_text("// x: counts x.\nint f;\n")
    (tmp_path / "x.yaml").write_text("""\
name: x
source: x.c
metrics: [{name: x_total, type: counter, map: m}]
variants:
  - name: only
    attach: [{raw_tracepoint: e, function: f}]
    requires: {kernel: ">=5.10", arch: x86_64, module: xfs, member: a.b, tracepoint_field: "c:d.e"}
""")
    programs.print_one(tmp_path, "x")
    shown = capsys.readouterr().out
    assert shown.startswith("x: counts x.\n")
    wanted = "kernel >=5.10, arch x86_64, module xfs, member a.b, tracepoint field c:d.e"
    assert f"only: raw_tracepoint e; requires {wanted}\n" in shown
