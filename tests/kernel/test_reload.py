"""A real exporter whose configuration changes: what stays, what is exchanged, what is refused; and nothing leaks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import Daemon, running
from tests.kernel.loaded import NOTHING, descriptors, kernel_ids, wait_gone
from tests.kernel.renames import CONFIG, rename
from tests.waiting import let_collection_expire, until

RELOADS = int(os.environ.get("BPF_EXPORTER_RELOADS", "20"))
ME = str(os.getpid())
LONG = 120.0  # seconds; far more than anything here takes


def second(name: str = "second", count: str = "1", metric: str = "ebpf_second_total", more: str = "") -> str:
    """An entry of `programs:` that counts renames of all threads, each as `count`."""
    return f"""\
  - name: {name}
    code: |
      BPF_ARRAY(calls, u64, 1);
      int on_rename(struct bpf_raw_tracepoint_args *ctx)
      {{
          int only = 0;
          add(calls.lookup(&only), {count}, LOST(calls));
          return 0;
      }}
    attach: [{{raw_tracepoint: task_rename, function: on_rename}}]
{more}    metrics:
      - {{name: {metric}, type: counter, help: Renames of all threads., map: calls, labels: []}}
"""


DRAINED = """\
  - name: drained
    code: |
      struct key_t {
          u32 pid;
      };
      DRAINED_HASH(seen, struct key_t, u64, 4096);
      int on_rename(struct bpf_raw_tracepoint_args *ctx)
      {
          struct key_t key = {.pid = bpf_get_current_pid_tgid() >> 32};
          u64 zero = 0;
          add(ODD(seen) ? seen_odd.lookup_or_try_init(&key, &zero)
                        : seen.lookup_or_try_init(&key, &zero), 1, LOST(seen));
          return 0;
      }
    attach: [{raw_tracepoint: task_rename, function: on_rename}]
    maps: {seen: {drain: true}}
    metrics:
      - {name: ebpf_drained_total, type: counter, help: Renames by process., map: seen, max_series: 4000}
"""
SAMPLED = """\
  - name: sampled
    code: |
      BPF_ARRAY(ticks, u64, 1);
      int on_tick(struct bpf_perf_event_data *ctx)
      {
          int only = 0;
          add(ticks.lookup(&only), 1, LOST(ticks));
          return 0;
      }
    attach: [{perf_event: cpu-clock, frequency: 49, function: on_tick}]
    metrics:
      - {name: ebpf_ticks_total, type: counter, help: Ticks., map: ticks, labels: []}
"""


class Reloaded:
    """An exporter and the files of its configuration. What it tells a service manager says when a reload is over."""

    def __init__(self, directory: Path, manager: socket.socket, daemon: Daemon) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.disable_file = directory / "disable"
        self.daemon = daemon
        self._manager = manager

    def wait(self, word: str) -> None:
        """For the next message with this word."""
        while word not in self._manager.recv(4096).decode():
            pass

    def reload(self, text: str | None = None) -> bool:
        """Write this, send SIGHUP, and wait until the server knows that it is over; whether what runs is what is
        written."""
        before = self.daemon.value("bpf_exporter_config_reloads_total")
        if text is not None:
            self.config.write_text(text)
        self.daemon.process.send_signal(signal.SIGHUP)
        self.wait("RELOADING=1")
        self.wait("READY=1")
        until(lambda: self.daemon.value("bpf_exporter_config_reloads_total") != before, lambda: self.daemon.log, LONG)
        return self.daemon.value("bpf_exporter_config_last_reload_successful") == 1

    @property
    def ids(self) -> dict[str, set[int]]:
        """Of maps, programs and links that the supervisor holds."""
        return kernel_ids(self.daemon.process.pid)

    def states(self) -> dict[str, str]:
        """By program."""
        return {
            dict(labels)["program"]: dict(labels)["state"]
            for (name, labels), value in self.daemon.samples().items()
            if name == "bpf_exporter_program_state" and value
        }

    def counted(self, name: str, **labels: str) -> float:
        """By now: scrapes within half a second of one another are answered with the same."""
        let_collection_expire()
        return self.daemon.value(name, **labels)

    def renames(self) -> float:
        """Of this process, as the exporter has counted them."""
        return self.counted("ebpf_renames_total", pid=ME)

    def wait_states(self, states: dict[str, str]) -> None:
        until(lambda: self.states() == states, lambda: self.daemon.log, LONG)


@contextmanager
def started(directory: Path, text: str = CONFIG, *arguments: str) -> Iterator[Reloaded]:
    path = directory / "config.yaml"
    path.write_text(text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(LONG)
        environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify")}
        more = ("--config.disable-file", str(directory / "disable"), *arguments)
        with running(path, directory, *more, environment=environment) as daemon:
            reloaded = Reloaded(directory, manager, daemon)
            reloaded.wait("READY=1")
            yield reloaded


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Reloaded]:
    with started(tmp_path) as reloaded:
        yield reloaded


def test_what_has_not_changed_is_not_touched(exporter: Reloaded) -> None:
    before, info = exporter.ids, exporter.daemon.samples()
    rename(23)
    assert exporter.renames() == 23
    assert exporter.reload()
    assert exporter.ids == before
    # Other lines, another order, and a program more.
    first = CONFIG.removeprefix("programs:\n")
    assert exporter.reload("# a comment\n\nprograms:\n" + second() + first)
    assert exporter.states() == {"second": "running", "renames": "running"}
    assert all(before[kind] < exporter.ids[kind] for kind in ("map", "prog", "link"))
    rename(23)
    assert exporter.renames() == 46
    assert exporter.counted("ebpf_second_total") >= 23
    now = exporter.daemon.samples()
    name = "bpf_exporter_config_last_reload_success_timestamp_seconds"
    assert now[name, frozenset()] > info[name, frozenset()]
    infos = {labels for name, labels in [*info, *now] if name == "bpf_exporter_config_info"}
    assert len(infos) == 2
    # And away again, from the kernel too.
    assert exporter.reload(CONFIG)
    assert exporter.states() == {"renames": "running"}
    assert exporter.ids == before
    assert exporter.renames() == 46


def test_a_new_name_other_metrics_and_help_leave_the_kernel_alone(exporter: Reloaded) -> None:
    before = exporter.ids
    rename(23)
    assert exporter.reload(CONFIG.replace("name: renames\n", "name: renamed\n"))
    assert exporter.states() == {"renamed": "running"}
    rename(23)
    assert exporter.renames() == 46
    assert exporter.reload(CONFIG.replace("Renames of threads", "Threads that were renamed"))
    assert "# HELP ebpf_renames_total Threads that were renamed by process." in exporter.daemon.get()
    assert exporter.reload(CONFIG.replace("ebpf_renames_total", "ebpf_renamed_total"))
    assert exporter.counted("ebpf_renamed_total", pid=ME) == 46
    assert exporter.renames() == 0
    assert exporter.ids == before


def test_what_a_drained_map_has_counted_stays_while_its_labels_do(exporter: Reloaded) -> None:
    assert exporter.reload(CONFIG + DRAINED)
    before = exporter.ids
    for number in range(1, 4):
        rename(23)
        assert exporter.counted("ebpf_drained_total", pid=ME) == 46 * number - 23
        rename(23)  # nobody has looked when the reload comes
        assert exporter.reload(CONFIG + DRAINED.replace("Renames by process", f"Renames in help {number}"))
        assert exporter.counted("ebpf_drained_total", pid=ME) == 46 * number
    assert exporter.ids == before


def test_sampled_programs_are_exchanged_and_kept_like_others(exporter: Reloaded) -> None:
    assert exporter.reload(CONFIG + SAMPLED)
    until(lambda: exporter.counted("ebpf_ticks_total") >= 5, seconds=LONG)
    before = exporter.ids
    events = held(exporter.daemon.process.pid)["anon_inode:[perf_event]"]
    assert exporter.reload("programs:\n" + SAMPLED + CONFIG.removeprefix("programs:\n"))
    assert exporter.ids == before
    assert exporter.reload(CONFIG + SAMPLED.replace("49", "97"))
    assert held(exporter.daemon.process.pid)["anon_inode:[perf_event]"] == events > 0
    until(lambda: exporter.counted("ebpf_ticks_total") >= 5, seconds=LONG)
    assert exporter.states() == {"renames": "running", "sampled": "running"}


def test_another_c_text_takes_the_place_of_the_old_one(exporter: Reloaded) -> None:
    assert exporter.reload(CONFIG + second())
    before = exporter.ids
    assert exporter.reload(CONFIG + second(count="1000"))
    rename(23)
    assert exporter.counted("ebpf_second_total") >= 23_000
    now = exporter.ids
    assert len(now["map"] & before["map"]) == len(before["map"]) / 2  # those of the other program
    assert wait_gone({kind: before[kind] - now[kind] for kind in before}) == NOTHING


def test_a_wrong_file_changes_nothing_and_every_mistake_is_told(exporter: Reloaded) -> None:
    before = exporter.ids
    rename(23)
    assert not exporter.reload("nonsense: 1\n" + CONFIG.replace("type: counter", "type: count"))
    assert re.search(r'file=\S*/config.yaml:1:1 mistake="unknown key \\"nonsense', exporter.daemon.log)
    assert re.search(r"file=\S*/config.yaml:20:\d+ mistake=.*ebpf_renames_total.*type", exporter.daemon.log)
    exporter.config.unlink()
    assert not exporter.reload()
    assert re.search(r'file=\S*/config.yaml mistake="cannot be read', exporter.daemon.log)
    assert exporter.ids == before
    rename(23)
    assert exporter.renames() == 46
    assert exporter.reload(CONFIG)
    assert exporter.ids == before


def test_c_that_does_not_compile_leaves_the_old_text_running_and_the_rest_is_taken(exporter: Reloaded) -> None:
    before = exporter.ids
    rename(23)
    assert not exporter.reload(CONFIG.replace("u64 zero = 0;", "u64 zero = nonsense;") + second())
    rename(23)
    assert exporter.renames() == 46
    assert exporter.states() == {"renames": "running", "second": "running"}
    assert all(before[kind] < exporter.ids[kind] for kind in before)
    assert re.search(
        'event="program goes on with its previous text" program=renames error=.*nonsense', exporter.daemon.log
    )
    page = exporter.daemon.get("/")
    assert "goes on with its previous text: renames: compile" in page
    # A metric that moves to another program waits for the one that has it.
    moved = CONFIG.replace("u64 zero = 0;", "u64 zero = nonsense;").replace("ebpf_renames_total", "ebpf_second_total")
    assert not exporter.reload(moved + second(metric="ebpf_renames_total"))
    assert exporter.renames() == 46
    assert exporter.daemon.get().count("# TYPE ebpf_second_total ") == 1
    assert "metric ebpf_renames_total is still that of renames" in exporter.daemon.get("/")
    assert exporter.reload(CONFIG)
    assert exporter.ids == before
    assert exporter.renames() == 46
    assert "previous text" not in exporter.daemon.get("/")


def test_a_new_name_and_a_typo_leave_the_program_of_the_old_name_counting(exporter: Reloaded) -> None:
    before = exporter.ids
    rename(23)
    named = CONFIG.replace("name: renames\n", "name: renamed\n")
    assert not exporter.reload(named.replace("u64 zero = 0;", "u64 zero = nonsense;"))
    assert exporter.states() == {"renamed": "failed", "renames": "running"}
    rename(23)
    assert (exporter.renames(), exporter.ids) == (46, before)
    assert "goes on until it is replaced: renamed: compile" in exporter.daemon.get("/")
    assert exporter.reload(named)
    assert exporter.states() == {"renamed": "running"}


def test_metrics_that_do_not_fit_the_maps_leave_the_old_ones(exporter: Reloaded) -> None:
    before = exporter.ids
    rename(23)
    assert not exporter.reload(CONFIG.replace("map: renames,", "map: renames, labels: [{name: x, field: nothing}],"))
    assert (exporter.renames(), exporter.ids) == (23, before)
    assert "goes on with its previous text: renames: " in exporter.daemon.get("/")


def test_files_that_the_main_file_names_are_read_again(exporter: Reloaded) -> None:
    includes, own = exporter.directory / "conf.d", exporter.directory / "programs"
    includes.mkdir()
    own.mkdir()
    main = CONFIG.replace(
        "programs:\n", "include: [conf.d/*.yaml]\nprograms:\n  - {use: second, defines: {BY: 1}}\n", 1
    )
    entry = second(count="BY", more="    defines: {BY: 1}\n").replace("  - name", "    name", 1)
    (own / "second.yaml").write_text(re.sub("^    ", "", entry, flags=re.MULTILINE))
    (includes / "a.yaml").write_text("programs:\n" + second("third", metric="ebpf_third_total"))
    kept = exporter.ids
    assert exporter.reload(main)
    assert exporter.states() == dict.fromkeys(["second", "renames", "third"], "running")
    before = exporter.ids
    # What a bundled program is given.
    assert exporter.reload(main.replace("BY: 1", "BY: 1000"))
    rename(23)
    assert exporter.counted("ebpf_second_total") >= 23_000
    # The bundled program itself, and an included file.
    (own / "second.yaml").write_text((own / "second.yaml").read_text().replace("ebpf_second", "ebpf_fourth"))
    (includes / "a.yaml").unlink()
    assert exporter.reload()
    assert exporter.counted("ebpf_fourth_total") >= 23_000
    assert exporter.states() == {"second": "running", "renames": "running"}
    now = exporter.ids
    assert all(kept[kind] < now[kind] for kind in kept)
    assert wait_gone({kind: before[kind] - now[kind] for kind in before}) == NOTHING


def test_enabled_false_an_empty_list_and_the_disable_file_detach(exporter: Reloaded) -> None:
    before = exporter.ids
    assert exporter.reload(CONFIG.replace("  - name: renames\n", "  - name: renames\n    enabled: false\n"))
    assert exporter.states() == {"renames": "disabled"}
    assert wait_gone(before) == NOTHING
    assert exporter.reload(CONFIG)
    assert exporter.states() == {"renames": "running"}
    assert exporter.reload("programs: []\n")
    assert exporter.states() == {}
    assert exporter.ids == NOTHING
    assert exporter.reload(CONFIG + second())
    before = exporter.ids
    exporter.disable_file.touch()
    # Whatever is wrong with the files.
    assert not exporter.reload("nonsense")
    assert exporter.states() == {"renames": "disabled", "second": "disabled"}
    assert exporter.daemon.value("bpf_exporter_disabled") == 1
    assert wait_gone(before) == NOTHING
    assert f"disabled by {exporter.disable_file}" in exporter.daemon.get("/")
    assert exporter.reload(CONFIG)
    assert exporter.states() == {"renames": "disabled"}
    exporter.disable_file.unlink()
    assert exporter.reload()
    rename(23)
    assert (exporter.renames(), exporter.daemon.value("bpf_exporter_disabled")) == (23, 0)


def test_a_start_with_the_disable_file_attaches_nothing(tmp_path: Path) -> None:
    (tmp_path / "disable").touch()
    with started(tmp_path) as exporter:
        assert exporter.states() == {"renames": "disabled"}
        assert exporter.ids == NOTHING
        assert exporter.daemon.value("bpf_exporter_disabled") == 1


def test_a_lifetime_ends_a_program_until_its_entry_changes(exporter: Reloaded) -> None:
    short = CONFIG.replace("  - name: renames\n", "  - name: renames\n    lifetime: 1s\n")
    before = exporter.ids
    assert exporter.reload(short)  # begun when it was attached
    exporter.wait_states({"renames": "ended"})
    assert wait_gone(before) == NOTHING
    assert exporter.reload()
    assert exporter.states() == {"renames": "ended"}
    assert exporter.reload(short.replace("1s", "1h"))
    assert exporter.states() == {"renames": "running"}


def test_what_had_failed_is_tried_again_and_limits_hold_at_once(exporter: Reloaded) -> None:
    assert exporter.reload("limits: {map_memory: 64KiB}\n" + CONFIG + second())
    assert exporter.states() == {"renames": "running", "second": "running"}  # what runs is not asked again
    assert exporter.reload("limits: {map_memory: 64KiB}\nprograms:\n" + second())
    assert exporter.reload("limits: {map_memory: 64KiB}\n" + CONFIG + second())  # new, so it has a state of its own
    assert exporter.states() == {"renames": "failed", "second": "running"}
    assert exporter.reload("limits: {map_memory: 64MiB}\n" + CONFIG + second())
    assert exporter.states() == {"renames": "running", "second": "running"}


def test_a_limit_of_series_holds_for_what_is_new(exporter: Reloaded) -> None:
    rename(23)
    assert exporter.renames() == 23
    assert exporter.reload("limits: {series: 1}\n" + CONFIG)
    subprocess.run(["true"], check=True)  # execve(2) renames
    assert exporter.counted("ebpf_renames_total", pid="other") >= 1
    assert exporter.renames() == 23
    assert exporter.reload("limits: {series: 1, label_length: 8}\n" + CONFIG)  # all of them are new
    assert exporter.counted("ebpf_renames_total") >= 24
    shown = [dict(labels)["pid"] for name, labels in exporter.daemon.samples() if name == "ebpf_renames_total"]
    assert len(shown) == 2
    assert "other" in shown


def test_a_signal_that_comes_during_a_reload_is_not_lost(exporter: Reloaded) -> None:
    exporter.config.write_text(CONFIG + second(count="1 + 1"))
    exporter.daemon.process.send_signal(signal.SIGHUP)
    exporter.wait("RELOADING=1")
    assert exporter.reload(CONFIG + second("third", metric="ebpf_third_total"))
    exporter.wait_states({"renames": "running", "third": "running"})


def test_files_are_looked_at_by_themselves_where_that_is_asked_for(tmp_path: Path) -> None:
    with started(tmp_path, CONFIG, "--config.auto-reload-interval", "50ms") as exporter:
        exporter.config.write_text(CONFIG + second())
        exporter.wait_states({"renames": "running", "second": "running"})
        exporter.config.write_text("nonsense\n")
        exporter.wait("RELOADING=1")
        exporter.wait("READY=1")
        exporter.disable_file.touch()
        exporter.wait_states({"renames": "disabled", "second": "disabled"})
        exporter.disable_file.unlink()
        exporter.config.write_text(CONFIG)
        exporter.wait_states({"renames": "running"})


def test_another_server_knows_what_was_reloaded(exporter: Reloaded) -> None:
    rename(23)
    assert exporter.reload(CONFIG.replace("name: renames\n", "name: renamed\n") + second())
    samples = exporter.daemon.samples()
    info = next(labels for name, labels in samples if name == "bpf_exporter_config_info")
    os.kill(exporter.daemon.server_pid(), signal.SIGKILL)
    exporter.daemon.wait_ready()
    assert exporter.states() == {"renamed": "running", "second": "running"}
    assert exporter.renames() == 23
    assert ("bpf_exporter_config_info", info) in exporter.daemon.samples()


class Load:
    """Scrapes without a pause, and renames this process beside it."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._scrape, self._drive)]
        self.wrong: list[str] = []
        self.scrapes = self.renames = 0
        self._last = 0.0

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        while not self._ended.is_set() and len(self.wrong) < 10:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - for the test to show
                self.wrong.append(f"{type(error).__name__}: {error}")

    def _drive(self) -> None:
        rename(10)
        self.renames += 10
        time.sleep(0.001)

    def _scrape(self) -> None:
        text = self._daemon.get()
        self.scrapes += 1
        types = Counter(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
        self.wrong += [f"family {name} twice" for name, times in types.items() if times > 1]
        if "ebpf_second_total " not in text:
            self.wrong.append("no ebpf_second_total")
        now = re.search(rf'^ebpf_renames_total{{pid="{ME}"}} (\d+)$', text, re.MULTILINE)
        if now is None or float(now[1]) < self._last:
            self.wrong.append(f"{now and now[0]} after {self._last}")
        else:
            self._last = float(now[1])


def held(pid: int) -> Counter[str]:
    """Kinds of descriptors that a process has open, and how many of each. That of run statistics comes and goes."""
    kinds = (re.sub(r"\d+", "N", what) for what in descriptors(pid).values())
    return Counter(kind for kind in kinds if kind != "anon_inode:bpf-stats")


def memory(pid: int) -> int:
    """Bytes that are the process's alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) << 10 for kib in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", text, re.MULTILINE))


def test_reloads_under_load_leak_nothing_and_no_scrape_fails(tmp_path: Path) -> None:
    """Each round is one of these; `renames` is in all of them as it is."""
    rounds = [
        CONFIG + second(),
        CONFIG + second(count="2"),  # another C text
        CONFIG + second(count="2").replace("Renames of all", "All renames of"),  # another help text
        "programs:\n" + second("again", count="2") + CONFIG.removeprefix("programs:\n"),  # another name and order
        CONFIG + second() + second("third", metric="ebpf_third_total"),  # a program more
        "limits: {series: 5000}\n" + CONFIG + second() + second("third", metric="ebpf_fourth_total"),
        CONFIG + second() + second("third", metric="ebpf_third_total", more="    enabled: false\n"),
        CONFIG + second("broken", metric="ebpf_third_total", more="    requires: {kernel: '>=99'}\n") + second(),
        CONFIG + "nonsense",
        CONFIG + second() + second("third", count="nothing", metric="ebpf_third_total"),  # does not compile
    ]
    with started(tmp_path, rounds[0]) as exporter:
        pids = exporter.daemon.process.pid, exporter.daemon.server_pid()
        rename(1)
        assert exporter.renames() == 1, exporter.daemon.log
        descriptors_before = [held(pid) for pid in pids]
        memory_before, seen = [0, 0], exporter.ids
        with Load(exporter.daemon) as load:
            for number in range(RELOADS):
                exporter.reload(rounds[number % len(rounds)])
                for kind, ids in exporter.ids.items():
                    seen[kind] |= ids
                assert load.wrong == [], exporter.daemon.log
                if number == min(RELOADS // 2, 5 * len(rounds)):  # every kind of round has been there
                    memory_before = [memory(pid) for pid in pids]
            assert exporter.reload(rounds[0])
        assert load.wrong == [], exporter.daemon.log
        assert exporter.renames() == 1 + load.renames
        assert exporter.states() == {"renames": "running", "second": "running"}
        now = exporter.ids
        assert {kind: len(ids) for kind, ids in now.items()} == {"map": 4, "prog": 2, "link": 2}
        assert wait_gone({kind: seen[kind] - now[kind] for kind in seen}) == NOTHING

        def opened() -> list[Counter[str]]:
            return [held(pid) - before for pid, before in zip(pids, descriptors_before, strict=True)]

        until(lambda: not any(opened()), opened, LONG)  # a connection may still be open
        grown = [memory(pid) - before for pid, before in zip(pids, memory_before, strict=True)]
        changed = {kind: len(ids) for kind, ids in seen.items()}
        print(f"{RELOADS} reloads, {load.scrapes} scrapes, none failed; {load.renames} events, all counted;", end=" ")
        print(f"{changed} came and went, none left; supervisor {grown[0]:+} bytes, server {grown[1]:+}")
        assert max(grown) < 8 << 20
