"""A drained map of 10,240 entries while two CPUs write keys that are all different: events lost, and cost of a run.

    python -m benchmarks.drain [--keys 1000000] [--json FILE]

  lost      the share of events at so many new keys a second (both CPUs together) that found no room. The program counts
            them and a running exporter shows them; an event that is neither counted nor lost is an error.
  program   ns per run by the kernel's own statistics, beside the same program with a plain hash (the floor). Both maps
            have the key already.

Needs root and gcc; nothing else should be running.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import rows
from exporter import config
from exporter.kernel import bpf_stats
from exporter.loading.load_program import load_program
from tests.daemon import running
from tests.kernel.programs import NR_GETPPID, compile_all, host

ENTRIES = 10_240
DRIVER = Path(__file__).parents[1] / "tests/kernel/workloads/getppid.c"
RATES = ((50_000, 0.0), (100_000, 0.0), (200_000, None))  # keys a second, and what part may be lost: ENTRIES / 0.1 s

CONFIG = """\
programs:
  - name: {name}
    code: |
      struct hit {{ u32 id; u32 cpu; }};
      {declared};
      BPF_PERCPU_ARRAY(events, u64, 1);
      int on_enter(struct bpf_raw_tracepoint_args *ctx)
      {{
          struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
          struct hit key = {{}};
          u64 zero = 0;
          int first = 0;
          if (ctx->args[1] != NR_GETPPID || PEEK(PT_REGS_PARM2(regs)) != MAGIC)
              return 0;
          add(events.lookup(&first), 1, LOST(hits));
          key.id = PEEK(PT_REGS_PARM1(regs));
          key.cpu = bpf_get_smp_processor_id();
          add({counter}, 1, LOST(hits));
          return 0;
      }}
    defines: {{NR_GETPPID: {nr}, MAGIC: {magic}}}
    maps: {options}
    attach: [{{raw_tracepoint: sys_enter, function: on_enter}}]
    metrics:
      - {{name: test_hits_total, type: counter, help: Hits., map: hits, labels: []}}
      - {{name: test_events_total, type: counter, help: Events., map: events, labels: []}}
"""
PLAIN = {
    "name": "plain",
    "declared": f"BPF_HASH(hits, struct hit, u64, {ENTRIES})",
    "counter": "hits.lookup_or_try_init(&key, &zero)",
    "options": "{}",
}
DRAINED = {
    "name": "drained",
    "declared": f"DRAINED_HASH(hits, struct hit, u64, {ENTRIES})",
    "counter": "ODD(hits) ? hits_odd.lookup_or_try_init(&key, &zero) : hits.lookup_or_try_init(&key, &zero)",
    "options": "{hits: {drain: true}}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="of both CPUs together (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave the rows there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        driver = work / "getppid"
        subprocess.run(["cc", "-O2", "-o", driver, DRIVER], check=True)
        found = [_lost(work, driver, chosen.keys, rate, most) for rate, most in RATES]
        plain, drained = (_nanoseconds(work, driver, form, chosen.keys // 4) for form in (PLAIN, DRAINED))
    found.append(rows.Row("the program, beside a plain hash", drained, "ns", floor=plain, ratio=drained / plain))
    rows.leave(found, chosen.json)


def _config(work: Path, form: dict[str, str]) -> tuple[Path, int]:
    path, magic = work / f"{form['name']}.yaml", secrets.randbelow(1 << 31)
    path.write_text(CONFIG.format(nr=NR_GETPPID, magic=magic, **form))
    return path, magic


def _write(driver: Path, magic: int, count: int, keys: int, rate: int) -> None:
    """Make so many calls on each of two CPUs."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    command = [str(count), str(keys), str(magic), str(rate)]
    processes = [subprocess.Popen([driver, str(cpu), *command]) for cpu in cpus]
    if sum(process.wait() for process in processes):
        sys.exit("the load failed")


def _lost(work: Path, driver: Path, keys: int, rate: int, most: float | None) -> rows.Row:
    path, magic = _config(work, DRAINED)
    with running(path, work, cache=work / "cache") as daemon:
        daemon.wait_ready()
        _write(driver, magic, keys // 2, keys // 2, rate // 2)
        time.sleep(0.6)  # longer than a collection is shared
        events, counted = daemon.value("test_events_total"), daemon.value("test_hits_total")
        lost = daemon.value("bpf_exporter_map_insert_failures_total", map="hits")
    if counted + lost != events:
        sys.exit(f"of {events} events {counted} were counted and {lost} lost")
    what = f"lost, of {keys:,} new keys at {rate:,} a second through {ENTRIES:,} entries"
    return rows.Row(what, lost, "events", ratio=lost / events, target=most)


def _nanoseconds(work: Path, driver: Path, form: dict[str, str], count: int) -> float:
    path, magic = _config(work, form)
    [spec] = config.load(path).config.programs
    here = host(work / "cache")
    compile_all(spec, here)
    program, fds = load_program(spec, here)
    if not fds.programs:
        sys.exit(program.text)
    try:
        [function] = fds.programs.values()
        _write(driver, magic, 5000, 5000, 0)
        statistics = bpf_stats.enable()
        before = bpf_stats.read(function)
        _write(driver, magic, count, 5000, 0)
        after = bpf_stats.read(function)
        os.close(statistics)
    finally:
        fds.close()
    return (after.ns - before.ns) / (after.runs - before.runs)


if __name__ == "__main__":
    main()
