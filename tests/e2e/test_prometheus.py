"""Exporters, workload and Debian's Prometheus: every panel and rule has data, every alert fires when it should.

The rules are those of prometheus/ with one change: `for:` is a second instead of minutes. Windows and thresholds stay.
What takes longer than a test (a day of past, an alert that must wait), cannot be provoked from outside
(BpfExporterCollectFailed) or would kill processes (OomKills) is tested by promtool with prometheus/alerts_test.yaml.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from exporter.config import bundled
from tests import daemon
from tests.e2e import prometheus as promserver
from tests.e2e import workload
from tests.e2e.queries import ALERTS, RECORDING, PanelQuery, panel_queries, rules, selectors
from tests.e2e.relay import Relay
from tests.kernel import renames
from tests.peer.workloads import disks
from tests.waiting import until

JOB = "bpf-exporter"
BUNDLED = bundled.names(bundled.bundled_dir())
HEALTHY = "programs:\n" + "".join(f"  - use: {name}\n" for name in BUNDLED)
# What some kernels cannot run at all (`optional` in their YAML), by a metric of theirs: it has no data there.
OPTIONAL = {
    "accept_latency": "ebpf_accept_latency_seconds",
    "cachestat": "ebpf_page_cache_ops_total",
    "kfree_skb": "ebpf_kfree_skb_total",
    "udp_drops": "ebpf_udp_fail_queue_rcv_skbs_total",
}
NO_VICTIM = "ebpf_oom_kills_total"  # has no series as long as nobody was killed
# A map for 8 of 64 keys, a metric for 3 of them, a decoder without answers, and a program that does not compile.
ILL = """
programs:
  - name: overflowing
    code: |
      BPF_HASH(few, u32, u64, 8);
      BPF_TABLE("lru_hash", u64, u64, moments, 64);
      int on_switch(struct bpf_raw_tracepoint_args *ctx)
      {
          u32 key = bpf_get_prandom_u32() % 64;
          u64 moment = bpf_ktime_get_ns() >> 25;
          u64 zero = 0;

          add(few.lookup_or_try_init(&key, &zero), 1, LOST(few));
          add(moments.lookup_or_try_init(&moment, &zero), 1, LOST(moments));
          return 0;
      }
    attach: [{raw_tracepoint: sched_switch, function: on_switch}]
    metrics:
      - name: test_few_total
        type: counter
        help: Switches by a random number.
        map: few
        max_series: 3
        labels: [{name: number, field: key}]
      - name: test_moments_total
        type: counter
        help: Switches by a moment that has no name.
        map: moments
        labels: [{name: moment, field: key, decode: [{map: {0: zero}}]}]
  - name: broken
    code: |
      BPF_HASH(counts, u32, u64, 8);
      int on_switch(struct bpf_raw_tracepoint_args *ctx)
      {
          return undeclared;
      }
    attach: [{raw_tracepoint: sched_switch, function: on_switch}]
    metrics:
      - {name: test_broken_total, type: counter, help: Nothing., map: counts, labels: [{name: number, field: key}]}
"""

WEB = "http_server_config: {headers: {X-Frame-Options: deny}}\n"

CALM_SECONDS = 20.0
QUERIES = panel_queries()
SELECTORS = sorted(
    {s for path in (RECORDING, ALERTS) for rule in rules(path) for s in selectors(rule.expr)} - {NO_VICTIM}
)


@dataclass(frozen=True)
class Stage:
    """Everything that runs (`instance` labels), and what was seen of it before anything was provoked."""

    prometheus: promserver.Prometheus
    relay: Relay
    ill_exporter: daemon.Daemon
    changing_exporter: daemon.Daemon
    changing_files: Path  # config.yaml, web.yaml, and disable if somebody makes it
    healthy: str
    ill: str
    changing: str
    stuck: str
    gone: str
    skipped: frozenset[str]  # programs that this kernel cannot run
    panels: dict[PanelQuery, list[float]]
    panels_of_all: dict[PanelQuery, list[float]]
    alerts: list[promserver.Labels]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("prometheus")
    with contextlib.ExitStack() as stack:
        healthy = stack.enter_context(_exporter(directory, "healthy", HEALTHY))
        ill = stack.enter_context(_exporter(directory, "ill", ILL))
        changing = stack.enter_context(_changing_exporter(directory / "changing"))
        stuck = stack.enter_context(_stuck_exporter(directory))
        for exporter in (healthy, ill, changing):
            exporter.wait_ready()
        relay = stack.enter_context(Relay.running())
        ports = (healthy.port, ill.port, changing.port, stuck.port, daemon.free_port())
        names = [f"127.0.0.1:{port}" for port in ports]
        stack.enter_context(workload.running("calm"))
        stack.enter_context(_disk_in_use())
        server = stack.enter_context(
            promserver.running(directory, _scrape_configs(names, relay), _impatient_rules(directory))
        )
        skipped = _skipped(healthy)
        panels, panels_of_all = _watch(server, names[0], skipped)
        alerts = [labels for labels, _ in server.query(f'max_over_time(ALERTS{{instance="{names[0]}"}}[10m])')]
        yield Stage(
            prometheus=server,
            relay=relay,
            ill_exporter=ill,
            changing_exporter=changing,
            changing_files=directory / "changing",
            healthy=names[0],
            ill=names[1],
            changing=names[2],
            stuck=names[3],
            gone=names[4],
            skipped=skipped,
            panels=panels,
            panels_of_all=panels_of_all,
            alerts=alerts,
        )


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: f"{q.panel}-{q.ref}")
def test_panel_query_returns_data(stage: Stage, query: PanelQuery) -> None:
    assert stage.panels[query] or impossible(query, stage.skipped)


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: f"{q.panel}-{q.ref}")
def test_panel_query_returns_data_for_all_jobs_and_instances(stage: Stage, query: PanelQuery) -> None:
    assert stage.panels_of_all[query] or impossible(query, stage.skipped)


def test_only_programs_that_may_be_missing_are(stage: Stage) -> None:
    """Where the kernel can run them nothing is excused above: with fentry or kprobes all of them run."""
    assert stage.skipped <= set(OPTIONAL)
    states = stage.prometheus.query(f'bpf_exporter_program_state{{instance="{stage.healthy}"}} == 1')
    assert {labels["program"]: labels["state"] for labels, _ in states} == {
        name: "skipped" if name in stage.skipped else "running" for name in BUNDLED
    }


@pytest.mark.parametrize("selector", SELECTORS)
def test_selector_of_the_rules_returns_data(stage: Stage, selector: str) -> None:
    assert stage.prometheus.query(selector)


def test_every_rule_is_evaluated(stage: Stage) -> None:
    groups = stage.prometheus.api("rules")["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(loaded) == {rule.name for path in (RECORDING, ALERTS) for rule in rules(path)}
    assert {name: rule.get("lastError") for name, rule in loaded.items() if rule["health"] != "ok"} == {}


def test_quiet_host_raises_no_alert(stage: Stage) -> None:
    """Whether somebody runs out of memory meanwhile is not for a test to say."""
    assert [labels for labels in stage.alerts if labels["alertname"] != "OomKills"] == []


def test_target_that_does_not_answer_raises_exporter_down(stage: Stage) -> None:
    assert_fires(stage, "BpfExporterDown", {"job": JOB, "instance": stage.gone})


def test_program_that_does_not_compile_raises_program_failed(stage: Stage) -> None:
    assert_fires(
        stage,
        "BpfExporterProgramFailed",
        {"job": JOB, "instance": stage.ill, "program": "broken", "state": "failed"},
    )


def test_loader_that_hangs_raises_program_stuck(stage: Stage) -> None:
    assert_fires(
        stage,
        "BpfExporterProgramStuck",
        {"job": JOB, "instance": stage.stuck, "program": "tcp_rst", "state": "loading"},
    )


def test_full_hash_map_raises_map_nearly_full(stage: Stage) -> None:
    labels = {"job": JOB, "instance": stage.ill, "program": "overflowing", "map": "few"}
    assert_fires(stage, "BpfExporterMapNearlyFull", labels)


def test_keys_without_room_raise_inserts_lost(stage: Stage) -> None:
    labels = {"job": JOB, "instance": stage.ill, "program": "overflowing", "map": "few"}
    assert_fires(stage, "BpfExporterInsertsLost", labels)


def test_values_without_names_raise_decoder_errors(stage: Stage) -> None:
    labels = {"job": JOB, "instance": stage.ill, "program": "overflowing", "decoder": "map"}
    assert_fires(stage, "BpfExporterDecoderErrors", labels)


def test_more_label_sets_than_allowed_raise_series_folded(stage: Stage) -> None:
    labels = {"job": JOB, "instance": stage.ill, "program": "overflowing", "metric": "test_few_total"}
    assert_fires(stage, "BpfExporterSeriesFolded", labels)


def test_server_killed_again_and_again_raises_server_restarts(stage: Stage) -> None:
    for _ in range(4):
        before = stage.ill_exporter.server_pid()
        os.kill(before, signal.SIGKILL)
        until(functools.partial(_another_server, stage.ill_exporter, before))
    assert_fires(stage, "BpfExporterServerRestarts", {"job": JOB, "instance": stage.ill})


def test_configuration_with_a_mistake_raises_config_reload_failed(stage: Stage) -> None:
    wrong = renames.CONFIG.replace("on_rename(", "on_rename(nonsense ")
    with _changed(stage, "config.yaml", wrong):
        assert_fires(stage, "BpfExporterConfigReloadFailed", {"job": JOB, "instance": stage.changing})


def test_web_configuration_with_a_mistake_raises_web_config_reload_failed(stage: Stage) -> None:
    with _changed(stage, "web.yaml", "nonsense: 1\n"):
        assert_fires(stage, "BpfExporterWebConfigReloadFailed", {"job": JOB, "instance": stage.changing})


def test_switch_raises_disabled(stage: Stage) -> None:
    with _changed(stage, "disable", ""):
        assert_fires(stage, "BpfExporterDisabled", {"job": JOB, "instance": stage.changing})


@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("storm", "TcpResetStorm"),
        ("slow-answers", "TcpResponseSlow"),
        ("lost-syns", "TcpConnectSlow"),
        ("silent-peers", "TcpRetransmitStorm"),
        ("no-accept", "TcpAcceptQueueLong"),
    ],
)
def test_workload_raises_its_alert(stage: Stage, kind: str, alert: str) -> None:
    """The exporters see the whole host, so the alert is raised for every one of them that counts TCP."""
    with workload.running(kind):
        until(lambda: stage.healthy in [labels["instance"] for labels in firing(stage, alert)])


def test_prometheus_parses_both_formats(stage: Stage) -> None:
    for job, content_type in (("openmetrics", "application/openmetrics-text"), ("text", "text/plain")):
        assert stage.relay.content_types[job].startswith(content_type)
        assert stage.prometheus.numbers(f'min_over_time(up{{job="{job}"}}[1m])') == [1]
        (samples,) = stage.prometheus.numbers(f'scrape_samples_scraped{{job="{job}"}}')
        assert samples > 200
    unlike = "count by (job) ({__name__=~'ebpf_.*|bpf_exporter_.*', job=~'openmetrics|text'})"
    counts = stage.prometheus.numbers(unlike)
    assert len(counts) == 2
    assert counts[0] == counts[1]


def test_landing_page_is_readable_in_a_browser(stage: Stage, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    url = f"http://{stage.ill}/"
    subprocess.run(
        [*browser, f"--screenshot={picture}", "--window-size=1200,800", url],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert picture.stat().st_size > 10_000  # an empty page is 4 kB
    page = subprocess.run([*browser, "--dump-dom", url], check=True, capture_output=True, text=True, timeout=120).stdout
    assert ">overflowing</a>" in page
    assert '<td class="state failed">failed</td>' in page
    assert "use of undeclared identifier 'undeclared'" in page


def impossible(query: PanelQuery, skipped: frozenset[str]) -> bool:
    """The panel is of a program that this kernel cannot run."""
    return any(OPTIONAL[name] in query.expr for name in skipped)


def firing(stage: Stage, alert: str) -> list[dict[str, str]]:
    """Labels of the alert's instances that are firing, but for those that every alert has."""
    common = ("__name__", "alertname", "alertstate", "severity")
    found = [{k: v for k, v in labels.items() if k not in common} for labels in stage.prometheus.firing(alert)]
    return [labels for labels in found if labels["job"] == JOB]


def assert_fires(stage: Stage, alert: str, labels: dict[str, str]) -> None:
    """The alert fires with these labels, and with no others."""
    until(lambda: bool(firing(stage, alert)))
    assert firing(stage, alert) == [labels]


def _another_server(exporter: daemon.Daemon, before: int) -> bool:
    return exporter.server_pid() != before


@contextlib.contextmanager
def _exporter(
    directory: Path, name: str, config: str, *options: str, cache: Path | None = None
) -> Iterator[daemon.Daemon]:
    own = directory / name
    own.mkdir(exist_ok=True)
    (own / "config.yaml").write_text(config)
    with daemon.running(own / "config.yaml", own, *options, cache=cache) as exporter:
        yield exporter


@contextlib.contextmanager
def _changed(stage: Stage, name: str, text: str) -> Iterator[None]:
    """Write a file of the changing exporter, which reads its files again; as it was before afterwards."""
    path = stage.changing_files / name
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    stage.changing_exporter.process.send_signal(signal.SIGHUP)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
        stage.changing_exporter.process.send_signal(signal.SIGHUP)


@contextlib.contextmanager
def _changing_exporter(own: Path) -> Iterator[daemon.Daemon]:
    """An exporter whose files tests may change."""
    own.mkdir()
    (own / "web.yaml").write_text(WEB)
    (own / "web.yaml").chmod(0o600)
    options = ("--web.config.file", str(own / "web.yaml"), "--config.disable-file", str(own / "disable"))
    with _exporter(own.parent, own.name, renames.CONFIG, *options) as exporter:
        yield exporter


@contextlib.contextmanager
def _stuck_exporter(directory: Path) -> Iterator[daemon.Daemon]:
    """An exporter whose only loader is stopped while it compiles: its cache is empty, so that takes a while."""
    with _exporter(directory, "stuck", "programs:\n  - use: tcp_rst\n", cache=directory / "empty") as exporter:
        supervisor = exporter.process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
        # The server comes first, then the loader.
        (loader, *_) = until(lambda: children.read_text().split()[1:], lambda: exporter.log, every=0.005)
        os.kill(int(loader), signal.SIGSTOP)
        yield exporter


@contextlib.contextmanager
def _disk_in_use() -> Iterator[None]:
    """A few reads, writes and flushes of a block device now and then."""
    over = threading.Event()

    def use(device: str) -> None:
        while not over.wait(0.5):
            disks.read_and_write(device, 3, 3, 1)

    with disks.loop_device() as device:
        thread = threading.Thread(target=use, args=(device,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _skipped(exporter: daemon.Daemon) -> frozenset[str]:
    states = (dict(labels) for (name, labels), value in exporter.samples().items()
              if name == "bpf_exporter_program_state" and value)  # fmt: skip
    return frozenset(state["program"] for state in states if state["state"] == "skipped")


def _scrape_configs(names: list[str], relay: Relay) -> list[dict[str, object]]:
    direct: dict[str, object] = {"job_name": JOB, "static_configs": [{"targets": names}]}
    relayed: list[dict[str, object]] = [
        {"job_name": job, "proxy_url": relay.url(job), "static_configs": [{"targets": names[:1]}]}
        for job in ("openmetrics", "text")
    ]
    return [direct, *relayed]


def _impatient_rules(directory: Path) -> list[Path]:
    """Copies of the rules in which an alert waits for one second only."""
    copies = []
    for path in (RECORDING, ALERTS):
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = "1s"
        copy = directory / path.name
        copy.write_text(yaml.safe_dump(document))
        copies.append(copy)
    return copies


def _watch(
    server: promserver.Prometheus, instance: str, skipped: frozenset[str]
) -> tuple[dict[PanelQuery, list[float]], dict[PanelQuery, list[float]]]:
    """What each panel shows of `instance`, and of all, once all show something or a minute is over."""

    def ask(job: str, instance: str) -> dict[PanelQuery, list[float]]:
        return {q: server.numbers(q.filled(job, instance, rate_interval="10s")) for q in QUERIES}

    expected = [query for query in QUERIES if not impossible(query, skipped)]
    start = time.monotonic()
    while True:
        time.sleep(2)
        chosen, everything = ask(JOB, instance), ask(".+", ".+")
        lived = time.monotonic() - start
        complete = all(chosen[query] and everything[query] for query in expected)
        if (lived > CALM_SECONDS and complete) or lived > 60:
            return chosen, everything
