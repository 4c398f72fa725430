"""A scraper that says how long it waits, and a map that takes longer than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon import running

pytestmark = pytest.mark.alone

ENTRIES = 400_000  # their text alone is 10 MB, made the first time they are asked for
WAITS = 0.05  # seconds; no machine does it in that
HEADER = "X-Prometheus-Scrape-Timeout-Seconds"

CONFIG = f"""\
limits: {{series: {ENTRIES + 1000}}}
programs:
  - name: large
    code: |
      BPF_ARRAY(large, u64, {ENTRIES});
      int on_rename(struct bpf_raw_tracepoint_args *ctx)
      {{
          return 0;
      }}
    attach: [{{raw_tracepoint: task_rename, function: on_rename}}]
    metrics:
      - name: test_large_total
        type: counter
        help: x
        map: large
        max_series: {ENTRIES}
        labels: [{{name: slot, field: key}}]
"""


def sample(page: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


def test_a_map_that_takes_too_long_is_left_out_and_there_next_time(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        early = daemon.get("/metrics", 30, **{HEADER: str(WAITS)})
        # Answered while the collection goes on.
        assert "test_large_total{" not in early
        assert sample(early, 'bpf_exporter_program_collect_success{program="large"}') == 0
        assert sample(early, 'bpf_exporter_program_late_scrapes_total{program="large"}') == 1
        # It was not in vain: who has more time gets all of it.
        whole = daemon.get(timeout=120)
        assert whole.count("\ntest_large_total{") == ENTRIES
        assert sample(whole, 'bpf_exporter_program_collect_success{program="large"}') == 1
        assert sample(whole, 'bpf_exporter_program_late_scrapes_total{program="large"}') == 1
