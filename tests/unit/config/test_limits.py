"""Limits, durations and sizes of the configuration: what is written, and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import config

TEXT = """\
limits: {limits}
programs:
  - name: sends
    code: |
      int on_send(void *ctx) {{ return 0; }}
    attach: [{{kprobe: tcp_sendmsg, function: on_send}}]
    maps: {{sends: {options}}}
    metrics:
      - {{name: ebpf_sends_total, type: counter, help: Sends., map: sends}}
"""


def load(here: Path, limits: str = "{}", options: str = "{}") -> config.LoadedConfig:
    (here / "config.yaml").write_text(TEXT.format(limits=limits, options=options))
    return config.load(here / "config.yaml")


def test_limits_that_are_left_out_are_those_of_the_reference(tmp_path: Path) -> None:
    loaded = load(tmp_path).config
    limits = loaded.limits
    assert (limits.series, limits.map_memory, limits.label_length) == (100_000, 256 << 20, 128)
    (program,) = loaded.programs
    assert (program.maps["sends"].ttl, program.maps["sends"].zeros) == (0.0, True)


def test_limits_as_written(tmp_path: Path) -> None:
    loaded = load(tmp_path, "{series: 7, map_memory: 1GiB, label_length: 64}").config.limits
    assert (loaded.series, loaded.map_memory, loaded.label_length) == (7, 1 << 30, 64)


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("'4096'", 4096), ("3KiB", 3072), ("64MiB", 64 << 20)])
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    assert load(tmp_path, f"{{map_memory: {text}}}").config.limits.map_memory == size


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "true", "64MB", "64M", "MiB", "[]"])
def test_what_is_no_size(tmp_path: Path, text: str) -> None:
    with pytest.raises(config.ConfigErrors, match="is no size; write bytes, or a number with KiB, MiB or GiB"):
        load(tmp_path, f"{{map_memory: {text}}}")


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("10m", 600), ("1h", 3600), ("2d", 172800), ("500ms", 0.5)]
)
def test_durations(tmp_path: Path, text: str, seconds: float) -> None:
    (program,) = load(tmp_path, options=f"{{ttl: {text}, zeros: true}}").config.programs
    assert program.maps["sends"].ttl == seconds


@pytest.mark.parametrize("text", ["60", "-1s", "1.5h", "1 h", "1H", "''", "true"])
def test_what_is_no_duration(tmp_path: Path, text: str) -> None:
    with pytest.raises(config.ConfigErrors, match="is no duration; write a number and its unit, like 90s, 10m or 1h"):
        load(tmp_path, options=f"{{ttl: {text}}}")
