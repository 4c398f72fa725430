"""A hostile host: many short processes with random names that open random ports, and how the exporter bears it.

    python -m benchmarks.hostile [--processes 100000] [--json FILE]

The daemon runs with the default limits and programs whose keys the attacker chooses: the name and path of an executed
file (a hash, which fills up), the name alone (a drained map, which does not), pairs of ports (an LRU map, whose keys
always change), and bundled programs with a label for the port. It is scraped all the time. These must hold, or the
benchmark fails:

  - every scrape is answered within Prometheus' default timeout
  - no metric shows more label sets than its max_series, and no label is longer than label_length
  - each process is counted in a series, in the folded series, or among the lost inserts
  - the memory of all roles grows by no more than the keys that fit into the maps, and no more in the second half

Needs root and gcc. The short form is a test: tests/kernel/test_hostile.py.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import observing, rows
from tests import daemon

LABEL_LENGTH = 128  # bytes, the default of limits.label_length
MAX_SERIES = 1000  # the default
ENTRIES = 10240  # of each map; the drained one is a pair
KEY_MEMORY = 3 / 1024  # MiB for a key that is alive: 272 bytes in several tables, and the texts of its labels
SLACK = 32.0  # MiB for pages of text (histograms of 512 ports are 45,000 lines), and for what malloc keeps

CONFIG = """
programs:
  - name: execs
    code: |
      struct executed {
          char comm[16];
          char path[256];
      };
      BPF_HASH(execs, struct executed, u64, ENTRIES);

      // TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
      int on_exec(struct bpf_raw_tracepoint_args *ctx)
      {
          const struct linux_binprm *program = (const struct linux_binprm *)ctx->args[2];
          struct executed key = {};
          u64 zero = 0;

          bpf_get_current_comm(&key.comm, sizeof(key.comm));
          bpf_probe_read_kernel_str(key.path, sizeof(key.path), PEEK(program->filename));
          add(execs.lookup_or_try_init(&key, &zero), 1, LOST(execs));
          return 0;
      }
    defines: {ENTRIES: %(entries)d}
    attach: [{raw_tracepoint: sched_process_exec, function: on_exec}]
    metrics:
      - {name: hostile_execs_total, type: counter, help: Programs executed., map: execs}
  - name: names
    code: |
      struct name {
          char comm[16];
      };
      DRAINED_HASH(names, struct name, u64, ENTRIES);

      int on_exec(struct bpf_raw_tracepoint_args *ctx)
      {
          struct name key = {};
          u64 zero = 0, *count;

          bpf_get_current_comm(&key.comm, sizeof(key.comm));
          count = ODD(names) ? names_odd.lookup_or_try_init(&key, &zero) : names.lookup_or_try_init(&key, &zero);
          add(count, 1, LOST(names));
          return 0;
      }
    defines: {ENTRIES: %(entries)d}
    maps: {names: {drain: true}}
    attach: [{raw_tracepoint: sched_process_exec, function: on_exec}]
    metrics:
      - {name: hostile_names_total, type: counter, help: Programs executed., map: names}
  - name: pairs
    code: |
      struct pair {
          u16 local;
          u16 remote;
      };
      BPF_TABLE("lru_hash", struct pair, u64, pairs, ENTRIES);

      int on_set_state(struct bpf_raw_tracepoint_args *ctx)
      {
          const struct sock *sk = (const struct sock *)ctx->args[0];
          struct pair key = {};
          u64 zero = 0;

          key.local = PEEK(sk->__sk_common.skc_num);
          key.remote = ntohs(PEEK(sk->__sk_common.skc_dport));
          add(pairs.lookup_or_try_init(&key, &zero), 1, LOST(pairs));
          return 0;
      }
    defines: {ENTRIES: %(entries)d}
    attach: [{raw_tracepoint: inet_sock_set_state, function: on_set_state}]
    metrics:
      - {name: hostile_pairs_total, type: counter, help: Changes of state., map: pairs}
"""
BUNDLED = ("tcp_rst", "tcp_sendmsg", "tcp_latency", "tcp_syn_backlog")


@dataclass(frozen=True)
class Outcome:
    """The state of the exporter after the attack.

    processes  that were executed; counted and lost: what the exporter says of them
    drained    counted and lost of them by the drained map
    shown      label sets of the metric that has most of them, the folded one not counted
    label      bytes of the longest label
    memory     MiB, all roles together: quiet, half way, at the end
    bound      MiB that they may have more at the end than when all was quiet
    """

    processes: int
    counted: int
    lost: int
    drained: tuple[int, int]
    shown: int
    label: int
    memory: tuple[float, float, float]
    bound: float
    scrapes: observing.Scrapes
    uncollected: int  # times that a program's maps could not be read or shown, by the exporter's log

    @property
    def wrong(self) -> list[str]:
        """The conditions that do not hold."""
        quiet, half, end = self.memory
        slowest = max(self.scrapes.seconds, default=observing.SCRAPE_TIMEOUT)
        checks = {
            f"{len(self.scrapes.failures)} scrapes failed, first {self.scrapes.failures[:1]}": self.scrapes.failures,
            f"{self.uncollected} collections failed": self.uncollected,
            f"a scrape took {slowest:.1f} s": slowest >= observing.SCRAPE_TIMEOUT,
            f"{self.processes - self.counted - self.lost} processes are missing": (
                self.counted + self.lost < self.processes
            ),
            f"{self.processes - sum(self.drained)} processes are missing in the drained map": (
                sum(self.drained) < self.processes
            ),
            f"a metric shows {self.shown} label sets": self.shown > MAX_SERIES,
            f"a label has {self.label} bytes": self.label > LABEL_LENGTH,
            f"memory went from {quiet:.0f} to {end:.0f} MiB": end - quiet > self.bound,
            f"memory went on rising, from {half:.0f} to {end:.0f} MiB": end - half > max(SLACK, self.bound / 4),
        }
        return [text for text, holds in checks.items() if holds]


def attack(exporter: daemon.Daemon, directory: Path, processes: int, entries: int) -> Outcome:
    """Scrape while the processes come and go, and return the outcome. `entries`: as in the configuration."""
    binary = directory / "hostile"
    source = Path(__file__).with_name("hostile.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", str(binary), str(source)], check=True)
    names = directory / "names"
    names.mkdir()
    quiet = observing.memory(exporter)
    before = {name: exporter.value(f"hostile_{name}_total") for name in ("execs", "names")}
    with observing.scraping(exporter) as scrapes:
        executed = _run(binary, names, processes // 2)
        half = observing.memory(exporter)
        executed += _run(binary, names, processes - processes // 2)
    end = observing.memory(exporter)
    shown, label = _shown(exporter.get())
    return Outcome(
        executed,
        *_counted(exporter, "execs", before["execs"]),
        _counted(exporter, "names", before["names"]),
        shown,
        label,
        (quiet, half, end),
        SLACK + 4 * entries * KEY_MEMORY,
        scrapes,
        exporter.log.count("collection failed"),
    )


def _counted(exporter: daemon.Daemon, name: str, before: float) -> tuple[int, int]:
    """Return what the map of this name counted, and what it had no room for."""
    counted = exporter.value(f"hostile_{name}_total") - before
    return int(counted), int(exporter.value("bpf_exporter_map_insert_failures_total", map=name))


def write_config(directory: Path, entries: int = ENTRIES, bundled: Sequence[str] = BUNDLED) -> Path:
    path = directory / "hostile.yaml"
    path.write_text(CONFIG % {"entries": entries} + "".join(f"  - use: {name}\n" for name in bundled))
    return path


def _run(binary: Path, names: Path, count: int) -> int:
    """Run the processes in a network namespace of their own, and return how many were executed."""
    inside = 'ip link set lo up && exec "$0" "$@"'
    command = ["unshare", "--net", "--", "sh", "-c", inside, str(binary), str(names), str(count)]
    done = subprocess.run([*command, str(random.randrange(1 << 31))], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def _shown(text: str) -> tuple[int, int]:
    """Return the label sets of the metric that has most, "other" left out, and the bytes of the longest label value."""
    sets: Counter[str] = Counter()
    longest = 0
    for family in text_string_to_metric_families(text):
        distinct = set()
        for sample in family.samples:
            labels = frozenset((k, v) for k, v in sample.labels.items() if k != "le")
            longest = max(longest, *(len(value.encode()) for _, value in labels), 0)
            if not labels or {value for _, value in labels} != {"other"}:
                distinct.add(labels)
        if not family.name.startswith("bpf_exporter_"):
            sets[family.name] = len(distinct)
    return max(sets.values(), default=0), longest


def table(outcome: Outcome) -> list[rows.Row]:
    quiet, _, end = outcome.memory
    slowest, impatient = (max(times, default=0.0) for times in (outcome.scrapes.seconds, outcome.scrapes.impatient))
    missing = 2 * outcome.processes - outcome.counted - outcome.lost - sum(outcome.drained)
    what = f"{outcome.processes:,} hostile processes"
    return [
        rows.Row(f"{what}: the slowest of {len(outcome.scrapes.seconds)} scrapes, of Prometheus' timeout", slowest, "s",
                 floor=observing.SCRAPE_TIMEOUT, ratio=slowest / observing.SCRAPE_TIMEOUT, target=1),
        rows.Row(f"{what}: the slowest of {len(outcome.scrapes.impatient)} scrapes that said they had 1 s",
                 impatient, "s", floor=observing.IMPATIENT, ratio=impatient / observing.IMPATIENT, target=1),
        rows.Row(f"{what}: memory that all roles gained, of the bound", end - quiet, "MiB", floor=outcome.bound,
                 ratio=(end - quiet) / outcome.bound, target=1),
        rows.Row(f"{what}: label sets of one metric, of max_series", outcome.shown, "series", floor=MAX_SERIES,
                 ratio=outcome.shown / MAX_SERIES, target=1),
        rows.Row(f"{what}: neither counted nor counted as lost", max(0, missing), "processes",
                 ratio=max(0, missing) / outcome.processes, target=0),
        rows.Row(f"{what}: lost by a full map of {ENTRIES:,} entries", outcome.lost, "processes",
                 ratio=outcome.lost / outcome.processes),
        rows.Row(f"{what}: lost by a drained map of as many", outcome.drained[1], "processes",
                 ratio=outcome.drained[1] / outcome.processes, target=0),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=100_000, help="(%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave the rows there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with daemon.running(write_config(directory), directory, cache=directory / "cache") as exporter:
            exporter.wait_ready()
            outcome = attack(exporter, directory, chosen.processes, ENTRIES)
    found = table(outcome)
    rows.leave(found, chosen.json)
    if outcome.wrong:
        sys.exit("; ".join(outcome.wrong))


if __name__ == "__main__":
    main()
