"""What the exporter says of itself: names, labels and values."""

from __future__ import annotations

from dataclasses import replace

import prometheus_client
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from exporter import __version__
from exporter.collecting import self_metrics
from exporter.collecting.collector import CollectReport, MetricReport
from exporter.collecting.text.exposition import page
from exporter.ipc.protocol import ReloadReport
from exporter.ipc.run_times import RunTime, RunTimes
from exporter.kernel import bpf
from exporter.program import DRAIN_EPOCHS, LOST_UPDATES, ODD, Attachment, Attempt, Map, Program, Reason, State

RUNNING = Program(
    "tcp",
    State.RUNNING,
    variant="kprobe",
    source_sha256="ab12",
    compile_seconds=1.5,
    maps=(
        Map("m", bpf.BPF_MAP_TYPE_HASH, 4, 8, 512, lost_index=0, drain_index=0),
        Map("m" + ODD, bpf.BPF_MAP_TYPE_HASH, 4, 8, 512),
        Map("forgetful", bpf.BPF_MAP_TYPE_LRU_HASH, 4, 8, 512),
        Map(DRAIN_EPOCHS, bpf.BPF_MAP_TYPE_ARRAY, 4, 4, 1),
        Map(LOST_UPDATES, bpf.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1),
    ),
    attachments=(
        Attachment("kprobe", "tcp_sendmsg", "on_send", True),
        Attachment("kprobe", "tcp_gone", "on_gone", False, Reason.MISSING, "no such function"),
    ),
    attempts=(
        Attempt("fentry", Reason.UNSUPPORTED, "EPERM"),
        Attempt("fentry", Reason.UNSUPPORTED, "again"),  # two texts, one label set
    ),
)
SKIPPED = Program("xfs", State.SKIPPED, Reason.REQUIRES, "needs module xfs")
REPORT = CollectReport(
    seconds=0.25,
    entries={"m": 23},
    insert_failures={"m": 7},
    metrics={"x_total": MetricReport(20, folded=3, dropped=1, expired=4), "y": MetricReport()},
    decoder_errors={"cgroup": 2},
)

CONFIGURATION = ReloadReport("cd34", 1.75e9, successful=False, disabled=True, reloads=3, failures=2)

TIMES = RunTimes(
    {
        "tcp": RunTime(share=0.25, budget=0.5, exceeded=3, missed=7, seconds=1.5, runs=23),
        "xfs": RunTime(missed=1),
        "other": RunTime(missed=5),  # not among the chosen ones
    },
    trap=4e-6,
)

STANDING = self_metrics.ServerStatus(
    unprivileged=True,
    restarts=3,
    web=self_metrics.WebConfiguration(successful=False, timestamp=1.76e9),
    configuration=CONFIGURATION,
    run_times=TIMES,
    armed=True,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(report: CollectReport = REPORT) -> Samples:
    return parsed(self_metrics.SelfMetrics(), report)


def parsed(
    of: self_metrics.SelfMetrics, report: CollectReport = REPORT, standing: self_metrics.ServerStatus = STANDING
) -> Samples:
    texts = of.texts([RUNNING, SKIPPED], {"tcp": report}, {}, standing)
    plain, openmetrics = (b"".join(page(texts, openmetrics)).decode() for openmetrics in (False, True))
    in_openmetrics = list(openmetrics_parser.text_string_to_metric_families(openmetrics))  # type: ignore[no-untyped-call]
    assert len(in_openmetrics) == plain.count("# TYPE")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(plain)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"bpf_exporter_{name}", frozenset(labels.items())))


def test_each_program_is_in_exactly_one_state() -> None:
    found = samples()
    for program, state in (("tcp", "running"), ("xfs", "skipped")):
        values = {s.value: value(found, "program_state", program=program, state=s.value) for s in State}
        assert values == {s.value: float(s.value == state) for s in State}


def test_a_wrong_web_configuration_is_seen() -> None:
    found = samples()
    assert value(found, "web_config_last_reload_successful") == 0
    assert value(found, "web_config_last_reload_success_timestamp_seconds") == 1.76e9


def test_a_fleet_sees_who_runs_which_configuration() -> None:
    found = samples()
    assert value(found, "config_info", sha256="cd34") == 1
    assert value(found, "config_last_reload_successful") == 0
    assert value(found, "config_last_reload_success_timestamp_seconds") == 1.75e9
    assert value(found, "config_reloads_total") == 3
    assert value(found, "config_reload_failures_total") == 2
    assert value(found, "disabled") == 1


def test_variants_and_attach_points_say_why_not() -> None:
    found = samples()
    assert value(found, "program_info", program="tcp", variant="kprobe", source_sha256="ab12") == 1
    assert value(found, "program_variant_info", program="tcp", variant="fentry", reason="unsupported") == 1
    assert value(found, "program_variant_info", program="xfs", variant="", reason="requires") == 1
    point = {"program": "tcp", "kind": "kprobe"}
    assert value(found, "program_attached", **point, target="tcp_sendmsg", function="on_send", reason="") == 1
    assert value(found, "program_attached", **point, target="tcp_gone", function="on_gone", reason="missing") == 0
    assert value(found, "program_compile_seconds", program="tcp") == 1.5


def test_maps_show_how_full_they_are_and_hidden_ones_do_not() -> None:
    found = samples()
    memory = value(found, "map_memory_bytes", program="tcp", map="m")
    assert memory
    assert memory >= 512 * 16  # what keys and values alone take
    assert value(found, "map_entries", program="tcp", map="m") == 23
    assert value(found, "map_max_entries", program="tcp", map="m") == 512
    assert value(found, "map_insert_failures_total", program="tcp", map="m") == 7
    assert value(found, "map_approximate", program="tcp", map="m") == 0
    assert value(found, "map_approximate", program="tcp", map="forgetful") == 1
    self_metrics = (LOST_UPDATES, DRAIN_EPOCHS, "m" + ODD)
    assert not [labels for _, labels in found if any(("map", name) in labels for name in self_metrics)]


def test_a_collection_reports_time_success_and_series() -> None:
    found = samples()
    assert value(found, "program_collect_duration_seconds", program="tcp") == 0.25
    assert value(found, "program_collect_success", program="tcp") == 1
    assert value(found, "metric_series", program="tcp", metric="x_total") == 20
    assert value(found, "metric_folded_series", program="tcp", metric="x_total") == 3
    assert value(found, "metric_dropped_series", program="tcp", metric="x_total") == 1
    assert value(found, "metric_expired_series_total", program="tcp", metric="x_total") == 4
    assert value(found, "metric_expired_series_total", program="tcp", metric="y") is None  # its map has no ttl
    assert value(found, "decoder_errors_total", program="tcp", decoder="cgroup") == 2
    assert value(samples(CollectReport(success=False)), "program_collect_success", program="tcp") == 0


def test_a_program_that_is_not_running_has_no_collection() -> None:
    assert value(samples(), "program_collect_success", program="xfs") is None


def test_what_the_supervisor_measured_is_shown_of_the_chosen_programs() -> None:
    found = samples()
    assert value(found, "program_cpu_ratio", program="tcp") == 0.25
    assert value(found, "program_budget_ratio", program="tcp") == 0.5
    assert value(found, "program_budget_exceeded_total", program="tcp") == 3
    assert value(found, "program_missed_runs_total", program="tcp") == 7
    assert value(found, "program_run_seconds_total", program="tcp") == 1.5
    assert value(found, "program_runs_total", program="tcp") == 23
    assert value(found, "uprobe_trap_seconds") == 4e-6
    assert value(found, "quarantine_armed") == 1
    assert {name for name, labels in found if ("program", "xfs") in labels and "run" in name} == {
        "bpf_exporter_program_missed_runs_total"
    }
    assert not [name for name, labels in found if ("program", "other") in labels]


def test_the_server_says_who_it_is() -> None:
    found = samples()
    version = {labels["version"] for name, pairs in found if "build_info" in name for labels in [dict(pairs)]}
    assert version == {__version__}
    assert value(found, "server_unprivileged") == 1
    assert value(found, "server_restarts_total") == 3


def test_process_metrics_are_those_of_prometheus_client() -> None:
    ours = {name: value for (name, _), value in samples().items() if name.startswith("process_")}
    theirs = {
        sample.name: sample.value
        for metric in prometheus_client.ProcessCollector(registry=None).collect()
        for sample in metric.samples
    }
    assert ours.keys() == theirs.keys()
    for steady in ("process_max_fds", "process_start_time_seconds"):
        assert ours[steady] == theirs[steady]
    for within in ours.keys() - {"process_max_fds", "process_start_time_seconds"}:
        assert theirs[within] / 2 < ours[within] < theirs[within] * 2


def test_what_is_kept_from_scrape_to_scrape_is_what_would_be_written_anew() -> None:
    kept = self_metrics.SelfMetrics()
    first = parsed(kept)
    reports = [REPORT, replace(REPORT, seconds=0.5), replace(REPORT, entries={"m": 24}, success=False)]
    standings = [STANDING, replace(STANDING, restarts=4), replace(STANDING, run_times=RunTimes(), armed=None)]
    for report in reports:
        for standing in standings:
            assert unmoved(parsed(kept, report, standing)) == unmoved(
                parsed(self_metrics.SelfMetrics(), report, standing)
            )
    assert unmoved(parsed(kept)) == unmoved(first)
    texts = [kept.texts([RUNNING, SKIPPED], {"tcp": report}, {}, STANDING) for report in reports[:2]]
    again = {b"".join(a.plain).split()[2].decode() for a, b in zip(*texts, strict=True) if a is not b}
    assert {name for name in again if not name.startswith("process_")} == {
        "bpf_exporter_program_collect_duration_seconds"
    }


def test_every_metric_has_a_name_of_its_own_and_one_sentence_of_help() -> None:
    names = [metric.name for metric in self_metrics.METRICS]
    assert len(set(names)) == len(names)
    for metric in self_metrics.METRICS:
        assert metric.help.endswith(".")
        assert metric.help[0].isupper() or metric.help[0].isdigit()
        assert metric.name.endswith("_total") == (metric.type == "counter")


def unmoved(found: Samples) -> Samples:
    """Without the numbers of this process."""
    return {key: number for key, number in found.items() if not key[0].startswith("process_")}
