"""A drained map: any number of keys through a small one, every event counted or counted as lost, whoever is killed."""

from __future__ import annotations

import operator
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter import config
from exporter.binding import totals_layout
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables, with_drained
from exporter.collecting.series.totals_store import Store
from exporter.collecting.text import exposition
from exporter.decoders import Names
from exporter.kernel import bpf, cpus, credentials, memfd
from exporter.loading.load_program import load_program
from exporter.program import Descriptors, Program, State
from exporter.spec import ProgramSpec
from tests.daemon import running
from tests.kernel.programs import NR_GETPPID, compile_all, host
from tests.waiting import fork, kill, let_collection_expire

ENTRIES = 10_000
DRIVER = Path(__file__).parent / "workloads/getppid.c"
CPUS = sorted(os.sched_getaffinity(0))[:2]

# Every key is another one, of few label sets. What the program saw is counted beside it, without any map to fill up.
CONFIG = """\
programs:
  - name: hits
    code: |
      struct hit {{
          u32 id;
          u16 cpu;
          u16 group;
      }};
      struct timing {{
          u64 slots[8];
          u64 sum;
      }};
      DRAINED_HASH(hits, struct hit, u64, ENTRIES);
      DRAINED_PERCPU_HASH(times, struct hit, struct timing, ENTRIES);
      BPF_PERCPU_ARRAY(events, u64, 1);

      int on_enter(struct bpf_raw_tracepoint_args *ctx)
      {{
          struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
          struct timing no_time = {{}}, *timing;
          struct hit key = {{}};
          u64 zero = 0;
          int first = 0;

          if (ctx->args[1] != NR_GETPPID || PEEK(PT_REGS_PARM2(regs)) != MAGIC)
              return 0;
          add(events.lookup(&first), 1, LOST(hits));
          key.id = PEEK(PT_REGS_PARM1(regs));
          key.cpu = bpf_get_smp_processor_id();
          key.group = key.id % 7;
          add(ODD(hits) ? hits_odd.lookup_or_try_init(&key, &zero)
                        : hits.lookup_or_try_init(&key, &zero), 1, LOST(hits));
          timing = ODD(times) ? times_odd.lookup_or_try_init(&key, &no_time)
                              : times.lookup_or_try_init(&key, &no_time);
          if (!timing)
              return lost(LOST(times));
          observe(timing->slots, &timing->sum, key.group, key.group);
          return 0;
      }}
    defines: {{NR_GETPPID: {nr}, MAGIC: {magic}, ENTRIES: {entries}}}
    maps:
      hits: {{drain: true}}
      times: {{drain: true}}
    attach: [{{raw_tracepoint: sys_enter, function: on_enter}}]
    metrics:
      - name: test_hits_total
        type: counter
        help: Hits by group; there are more groups than may be shown.
        map: hits
        max_series: 4
        labels: [{{name: group, field: group}}]
      - name: test_group
        type: histogram
        help: The groups themselves.
        map: times
        buckets: {{type: linear, width: 1, min: 0, max: 6}}
        labels: [{{name: cpu, field: key.cpu}}]
      - {{name: test_events_total, type: counter, help: Events seen., map: events, labels: []}}
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    built = tmp_path / "getppid"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", built, DRIVER], check=True)
    return built


def configuration(directory: Path, magic: int) -> Path:
    """`magic`: the number that the program knows its events by."""
    path = directory / "config.yaml"
    path.write_text(CONFIG.format(nr=NR_GETPPID, magic=magic, entries=ENTRIES))
    return path


@contextmanager
def writing(driver: Path, magic: int, events: int, rate: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes on two CPUs, each making so many events with a key of its own each."""
    command = [str(events), str(events), str(magic), str(rate)]
    processes = [subprocess.Popen([driver, str(cpu), *command]) for cpu in CPUS]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


def total(page: Page, name: str, **labels: str) -> float:
    return sum(value for (sample, has), value in page.items() if sample == name and set(labels.items()) <= has)


def assert_exact(page: Page, events: int) -> None:
    lost = {name: total(page, "bpf_exporter_map_insert_failures_total", map=name) for name in ("hits", "times")}
    assert total(page, "test_events_total") == events
    assert total(page, "test_hits_total") + lost["hits"] == events
    assert total(page, "test_group_count") + lost["times"] == events
    assert total(page, "test_group_bucket", le="+Inf") + lost["times"] == events
    counted = {
        int(dict(has)["group"]) for (name, has) in page if name == "test_hits_total" and ("group", "other") not in has
    }
    assert counted <= set(range(7))
    assert len(counted) == 4
    assert total(page, "test_hits_total", group="other") > 0


def access(pid: int) -> dict[int, set[int]]:
    """How a process may use its maps, by their type."""
    modes: dict[int, set[int]] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(entry) == "anon_inode:bpf-map":
            lines = (line.split(":\t") for line in Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().splitlines())
            said = {parts[0]: parts[1] for parts in lines}
            modes.setdefault(int(said["map_type"]), set()).add(int(said["flags"], 8) & os.O_ACCMODE)
    return modes


def assert_risen(before: Page, after: Page) -> None:
    fell = {
        which: (value, after.get(which))
        for which, value in before.items()
        if which[0].startswith("test_") and after.get(which, -1) < value
    }
    assert not fell


def test_a_million_keys_through_ten_thousand_entries_while_two_cpus_write(driver: Path, tmp_path: Path) -> None:
    assert len(CPUS) == 2, "this test needs two CPUs"
    each = 500_000
    magic = secrets.randbelow(1 << 31)
    with running(configuration(tmp_path, magic), tmp_path) as daemon:
        daemon.wait_ready()
        assert access(daemon.server_pid()) == {
            bpf.BPF_MAP_TYPE_HASH: {os.O_RDWR},
            bpf.BPF_MAP_TYPE_PERCPU_HASH: {os.O_RDWR},
            bpf.BPF_MAP_TYPE_ARRAY: {os.O_RDWR},  # of epochs
            bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS: {os.O_RDWR},  # the barrier
            bpf.BPF_MAP_TYPE_PERCPU_ARRAY: {os.O_RDONLY},
        }
        with writing(driver, magic, each, 60_000) as processes:
            before: Page = {}
            killed = False
            while any(process.poll() is None for process in processes):
                page = daemon.samples()
                assert_risen(before, page)
                before = page
                if not killed and total(page, "test_events_total") > each // 4:
                    killed = True
                    os.kill(daemon.server_pid(), signal.SIGKILL)
                    daemon.wait_ready()
                let_collection_expire()
            assert [process.returncode for process in processes] == [0, 0]
        page = daemon.samples()
    assert_risen(before, page)
    assert_exact(page, 2 * each)
    assert killed
    # A machine that does nothing else loses none; whatever else this one does, many times the entries went through.
    assert total(page, "test_hits_total") > 10 * ENTRIES


class Server:
    """What a server has of one program: its maps and the memory of its totals."""

    def __init__(self, program: Program, spec: ProgramSpec, fds: Descriptors) -> None:
        self.program, self.spec, self.fds = program, spec, fds
        self.plan = totals_layout.of_program(program, spec, cpus.possible(), 128)
        self.memory = memfd.of_size("totals", self.plan.size)

    def collector(self) -> ProgramCollector:
        store = Store(self.memory, self.plan)
        tables = open_tables(self.program, self.fds.maps, cpus.possible())
        return ProgramCollector(
            self.program,
            self.spec,
            with_drained(tables, self.program, self.spec.maps, self.fds.maps, store.uncleared),
            Names.empty(),
            possible=cpus.possible_numbers(),
            online=cpus.online,
            store=store,
        )

    def serve(self) -> NoReturn:
        """In a forked child, with no rights: drain and collect until it is killed."""
        try:
            credentials.drop_to(65534, 65534)
            collector = self.collector()
            while True:
                collector.drain(0.0)
                collector.collect()
                if collector.report.error:
                    print(collector.report.error, file=sys.stderr)
        finally:
            os._exit(1)

    def page(self, collector: ProgramCollector) -> Page:
        text = exposition.render(collector.collect(), openmetrics=False).decode()
        assert collector.report.success, collector.report.error
        page = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        lost = {
            ("bpf_exporter_map_insert_failures_total", frozenset({("map", name)})): float(number)
            for name, number in collector.report.insert_failures.items()
        }
        return {**page, **lost}


@contextmanager
def loaded(directory: Path, magic: int) -> Iterator[Server]:
    [spec] = config.load(configuration(directory, magic)).config.programs
    with_host = host(directory / "artifacts")
    compile_all(spec, with_host)
    program, fds = load_program(spec, with_host)
    assert program.state is State.RUNNING, program.text
    server = Server(program, spec, fds)
    try:
        yield server
    finally:
        os.close(server.memory)
        fds.close()


def test_events_are_counted_once_however_often_the_server_is_killed(driver: Path, tmp_path: Path) -> None:
    kills = int(os.environ.get("BPF_EXPORTER_KILLS", "20"))  # make soak: 200
    each = 8_000 * kills
    magic = secrets.randbelow(1 << 31)
    choose = random.Random(kills)
    with loaded(tmp_path, magic) as server:
        before: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        with writing(driver, magic, each, 40_000) as processes:
            for _ in range(kills):
                child = fork(server.serve)
                time.sleep(choose.uniform(0.03, 0.25))
                assert kill(child) == -signal.SIGKILL
                # What it had committed is what the next one shows, and more.
                shown = {
                    (name, labels): numbers
                    for name, kept in Store(server.memory, server.plan).committed.items()
                    for labels, numbers in zip(kept.sets, kept.shown.tolist(), strict=True)
                }
                fell = [which for which, numbers in before.items() if any(map(operator.lt, shown[which], numbers))]
                assert not fell
                before = shown
            for process in processes:
                process.wait(120)
        collector = server.collector()
        server.page(collector)
        page = server.page(collector)
    assert_exact(page, 2 * each)
    assert total(page, "test_hits_total") > ENTRIES
