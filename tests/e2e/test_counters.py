"""Keys are evicted and deleted all the time, the server is killed, and no counter that Prometheus stored ever falls."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from pathlib import Path

from tests import daemon
from tests.e2e import prometheus
from tests.kernel.programs import NR_GETPPID
from tests.waiting import until

DRIVER = Path(__file__).parents[1] / "kernel/workloads/getppid.c"
GROUPS = 5
CONFIG = """\
programs:
  - name: churning
    code: |
      struct hit {{
          u32 id;
          u32 group;
      }};
      struct timing {{
          u64 slots[6];
          u64 sum;
      }};
      BPF_TABLE("lru_hash", struct hit, u64, evicted, 128);
      BPF_HASH(deleted, struct hit, struct timing, 1024);

      int on_enter(struct bpf_raw_tracepoint_args *ctx)
      {{
          struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
          struct timing none = {{}}, *timing;
          struct hit key = {{}};
          u64 zero = 0;

          if (ctx->args[1] != NR_GETPPID || PEEK(PT_REGS_PARM2(regs)) != MAGIC)
              return 0;
          key.id = PEEK(PT_REGS_PARM1(regs));
          key.group = key.id % {groups};
          add(evicted.lookup_or_try_init(&key, &zero), 1, LOST(evicted));
          timing = deleted.lookup_or_try_init(&key, &none);
          if (!timing)
              return lost(LOST(deleted));
          observe(timing->slots, &timing->sum, key.group, key.group);
          key.id = (key.id + 500) % 1000;
          key.group = key.id % {groups};
          deleted.delete(&key);
          return 0;
      }}
    defines: {{NR_GETPPID: {nr}, MAGIC: {magic}}}
    attach: [{{raw_tracepoint: sys_enter, function: on_enter}}]
    metrics:
      - {{name: test_evicted_total, type: counter, help: Hits., map: evicted, labels: [{{name: group, field: group}}]}}
      - {{name: test_now, type: gauge, help: Hits there., map: evicted, labels: [{{name: group, field: group}}]}}
      - name: test_deleted
        type: histogram
        help: Groups.
        map: deleted
        buckets: {{type: linear, width: 1, min: 0, max: 4}}
        labels: [{{name: group, field: group}}]
"""
COUNTERS = ("test_evicted_total", "test_deleted_bucket", "test_deleted_count", "test_deleted_sum")


def test_prometheus_sees_no_reset_of_a_counter_while_keys_go_and_a_server_is_killed(tmp_path: Path) -> None:
    magic = secrets.randbelow(1 << 31)
    config, driver = tmp_path / "config.yaml", tmp_path / "getppid"
    config.write_text(CONFIG.format(nr=NR_GETPPID, magic=magic, groups=GROUPS))
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", driver, DRIVER], check=True)
    with daemon.running(config, tmp_path) as exporter:
        exporter.wait_ready()
        job = {"job_name": "test", "static_configs": [{"targets": [f"127.0.0.1:{exporter.port}"]}]}
        cpu = str(min(os.sched_getaffinity(0)))
        with prometheus.running(tmp_path, [job], []) as server:
            writing = subprocess.Popen([driver, cpu, str(10**9), "1000", str(magic), "2000"])
            try:
                wait_for(server, "sum(count_over_time(test_now[5m]))", 4 * GROUPS)
                os.kill(exporter.server_pid(), signal.SIGKILL)
                wait_for(server, "sum(resets(test_now[5m]))", 3)  # the entries themselves do go
                wait_for(server, "min(bpf_exporter_server_restarts_total)", 1)
                wait_for(server, "sum(count_over_time(test_now[5m]))", 10 * GROUPS)
            finally:
                writing.kill()
                writing.wait()
            for name in COUNTERS:
                assert {value for _, value in server.query(f"resets({name}[5m])")} == {0}, name
                assert len(server.query(f"count by (group) (last_over_time({name}[5m]))")) == GROUPS
                assert min(server.numbers(f"rate({name}[5m])")) >= 0
            assert min(server.numbers("rate(test_evicted_total[5m])")) > 0


def wait_for(server: prometheus.Prometheus, expr: str, least: float) -> None:
    until(
        lambda: any(value >= least for value in server.numbers(expr)),
        lambda: f"{expr} did not reach {least}: {server.numbers(expr)}",
        seconds=90,
        every=0.3,
    )
