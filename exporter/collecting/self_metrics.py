"""The exporter's metrics of itself: states, reports and run times -> families in the text formats.

Each metric is one row of `METRICS` and one row of docs/operating.md. A number of the supervisor arrives in a message
(ipc/protocol.py) that server/registry.py puts into ServerStatus; a number of a collection is in CollectReport.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

from exporter import __version__
from exporter.binding.map_memory import map_memory
from exporter.collecting.collector import CollectReport, MetricReport
from exporter.collecting.text import exposition
from exporter.ipc.protocol import ReloadReport
from exporter.ipc.run_times import RunTime, RunTimes
from exporter.kernel import cpus, map_types
from exporter.kernel.own_process import OwnProcess, own_process
from exporter.program import Map, Program, State, hidden

_possible_cpus = cache(cpus.possible)  # as long as the machine is up


@dataclass(frozen=True, slots=True)
class WebConfiguration:
    """The outcome of the last read of --web.config.file, and the Unix time of the last successful one."""

    successful: bool
    timestamp: float


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of the server and of its supervisor.

    unprivileged  whether the server has no capability
    restarts      how often the server died
    connected     whether the supervisor is there
    armed         whether the quarantine would remember a crash; None where there is no quarantine
    """

    unprivileged: bool
    restarts: int = 0
    connected: bool = True
    web: WebConfiguration | None = None
    configuration: ReloadReport | None = None
    run_times: RunTimes = field(default_factory=RunTimes)
    armed: bool | None = None


class _Page(NamedTuple):
    """The data that the metrics of one page are made of."""

    programs: Sequence[Program]
    maps: Sequence[tuple[str, Map]]  # with the names of their programs; those hidden left out
    reports: Mapping[str, CollectReport]  # by program
    late: Mapping[str, int]  # scrapes that were too late, by program
    status: ServerStatus
    process: OwnProcess | None


# Label values and the number of each sample; a sample without a number is left out.
_Samples = Iterable[tuple[tuple[str, ...], float | None]]


class _Metric(NamedTuple):
    name: str
    type: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    samples: Callable[[_Page], _Samples]
    help: str


def _server(value: Callable[[ServerStatus], float | None]) -> Callable[[_Page], _Samples]:
    return lambda page: [((), value(page.status))]


def _config(value: Callable[[ReloadReport], float]) -> Callable[[_Page], _Samples]:
    return lambda page: [((), value(c)) for c in [page.status.configuration] if c is not None]


def _web(value: Callable[[WebConfiguration], float]) -> Callable[[_Page], _Samples]:
    return lambda page: [((), value(web)) for web in [page.status.web] if web is not None]


def _program(value: Callable[[Program], float | None]) -> Callable[[_Page], _Samples]:
    return lambda page: [((p.name,), value(p)) for p in page.programs]


def _run_time(value: Callable[[RunTime], float | None]) -> Callable[[_Page], _Samples]:
    def samples(page: _Page) -> _Samples:
        times = page.status.run_times.programs
        return [((p.name,), value(times[p.name])) for p in page.programs if p.name in times]

    return samples


def _map(value: Callable[[Map], float]) -> Callable[[_Page], _Samples]:
    return lambda page: [((name, m.name), value(m)) for name, m in page.maps]


def _report(value: Callable[[CollectReport], float]) -> Callable[[_Page], _Samples]:
    return lambda page: [((name,), value(report)) for name, report in page.reports.items()]


def _counts(counts: Callable[[CollectReport], Mapping[str, int]]) -> Callable[[_Page], _Samples]:
    return lambda page: [
        ((name, of), number) for name, report in page.reports.items() for of, number in counts(report).items()
    ]


def _metric(value: Callable[[MetricReport], int | None]) -> Callable[[_Page], _Samples]:
    return lambda page: [
        ((name, metric), value(m)) for name, report in page.reports.items() for metric, m in report.metrics.items()
    ]


def _process(value: Callable[[OwnProcess], float]) -> Callable[[_Page], _Samples]:
    return lambda page: [((), value(process)) for process in [page.process] if process is not None]


def _build(_: _Page) -> _Samples:
    yield (__version__, platform.python_version()), 1


def _states(page: _Page) -> _Samples:
    return [((p.name, state.value), p.state is state) for p in page.programs for state in State]


def _unused_variants(page: _Page) -> _Samples:
    """Variants that were tried and not used; a program that does not run for another reason has the variant ""."""
    for p in page.programs:
        for attempt in p.attempts:
            yield (p.name, attempt.variant, attempt.reason.value), 1
        if p.reason and not p.attempts:
            yield (p.name, "", p.reason.value), 1


def _attach_points(page: _Page) -> _Samples:
    return [
        ((p.name, a.kind, a.target, a.function, a.reason.value), a.attached)
        for p in page.programs
        for a in p.attachments
    ]


_PROGRAM, _MAP, _METRIC = ("program",), ("program", "map"), ("program", "metric")
_COUNTED = "only with --overhead.stats=always or the sysctl kernel.bpf_stats_enabled."

# fmt: off
METRICS = (
    _Metric("bpf_exporter_build_info", "gauge", ("version", "python_version"), _build,
            "Version of the exporter and of the Python that runs it; always 1."),
    _Metric("bpf_exporter_server_unprivileged", "gauge", (), _server(lambda s: s.unprivileged),
            "Whether the process that answers scrapes has no capability (1) or keeps CAP_BPF (0)."),
    _Metric("bpf_exporter_server_restarts_total", "counter", (), _server(lambda s: s.restarts),
            "Times that the process that answers scrapes died and was started again."),
    _Metric("bpf_exporter_supervisor_connected", "gauge", (), _server(lambda s: s.connected),
            "Whether the supervisor is there (1); without it (0) maps are read as it left them."),
    _Metric("bpf_exporter_quarantine_armed", "gauge", (), _server(lambda s: s.armed),
            "Whether programs are recorded before they are attached, so that none crashes this host twice (1)."),
    _Metric("bpf_exporter_disabled", "gauge", (), _config(lambda c: c.disabled),
            "Whether nothing is attached because the file of --config.disable-file exists (1)."),
    _Metric("bpf_exporter_config_info", "gauge", ("sha256",),
            lambda page: [((c.sha256,), 1) for c in [page.status.configuration] if c is not None],
            "SHA-256 over all files of the configuration in use; always 1. Hosts with equal files have equal ones."),
    _Metric("bpf_exporter_config_last_reload_successful", "gauge", (), _config(lambda c: c.successful),
            "Whether the last configuration reload succeeded (1) or an earlier configuration is still, at least "
            "partly, running (0)."),
    _Metric("bpf_exporter_config_last_reload_success_timestamp_seconds", "gauge", (), _config(lambda c: c.timestamp),
            "Unix time at which the configuration in use was read."),
    _Metric("bpf_exporter_config_reloads_total", "counter", (), _config(lambda c: c.reloads),
            "Configuration reloads."),
    _Metric("bpf_exporter_config_reload_failures_total", "counter", (), _config(lambda c: c.failures),
            "Configuration reloads that failed or were only partly applied."),
    _Metric("bpf_exporter_web_config_last_reload_successful", "gauge", (), _web(lambda w: w.successful),
            "Whether the last reload of the web configuration succeeded (1) or an earlier one is still in use (0)."),
    _Metric("bpf_exporter_web_config_last_reload_success_timestamp_seconds", "gauge", (), _web(lambda w: w.timestamp),
            "Unix time at which the web configuration in use was read."),

    _Metric("bpf_exporter_program_state", "gauge", ("program", "state"), _states,
            "1 for the state that the program is in, 0 for all other states."),
    _Metric("bpf_exporter_program_info", "gauge", ("program", "variant", "source_sha256"),
            lambda page: [((p.name, p.variant, p.source_sha256), 1) for p in page.programs],
            "Variant in use and SHA-256 of the program's C source; always 1."),
    _Metric("bpf_exporter_program_variant_info", "gauge", ("program", "variant", "reason"), _unused_variants,
            'Variants tried and not used, and programs that do not run (variant ""), with the reason; always 1.'),
    _Metric("bpf_exporter_program_attached", "gauge", ("program", "kind", "target", "function", "reason"),
            _attach_points,
            "Whether the attach point is attached (1), or is optional and could not be attached (0)."),
    _Metric("bpf_exporter_program_compile_seconds", "gauge", _PROGRAM,
            _program(lambda p: float(p.compile_seconds) if p.state is State.RUNNING else None),
            "Time that compiling the program took; 0 if its bytecode came from the cache."),
    _Metric("bpf_exporter_program_collect_success", "gauge", _PROGRAM, _report(lambda r: r.success),
            "Whether all metrics of the program were collected (1)."),
    _Metric("bpf_exporter_program_collect_duration_seconds", "gauge", _PROGRAM, _report(lambda r: r.seconds),
            "Time that reading the program's maps and making its metrics took."),
    _Metric("bpf_exporter_program_late_scrapes_total", "counter", _PROGRAM,
            lambda page: [((name,), page.late.get(name, 0)) for name in page.reports],
            "Scrapes without the program's metrics, because collecting them took longer than the scraper waits."),
    _Metric("bpf_exporter_program_cpu_ratio", "gauge", _PROGRAM, _run_time(lambda t: t.share),
            "CPU seconds per second that the program took, over all CPUs and with the traps of uprobes, in the last "
            "window in which run times were measured: 1 s of every 30 s unless flags say otherwise."),
    _Metric("bpf_exporter_program_budget_ratio", "gauge", _PROGRAM, _run_time(lambda t: t.budget),
            "CPU seconds per second that the program may take before it is detached."),
    _Metric("bpf_exporter_program_budget_exceeded_total", "counter", _PROGRAM,
            _run_time(lambda t: None if t.budget is None else t.exceeded),
            "Times that the program was detached because it took more than its budget."),
    _Metric("bpf_exporter_program_run_seconds_total", "counter", _PROGRAM, _run_time(lambda t: t.seconds),
            f"Time that runs of the program took, over all CPUs, without the traps of uprobes; {_COUNTED}"),
    _Metric("bpf_exporter_program_runs_total", "counter", _PROGRAM, _run_time(lambda t: t.runs),
            f"Runs of the program; {_COUNTED}"),
    _Metric("bpf_exporter_program_missed_runs_total", "counter", _PROGRAM, _run_time(lambda t: t.missed),
            "Events that the program missed because it, or another program, was running on that CPU; read every 30 s."),
    _Metric("bpf_exporter_uprobe_trap_seconds", "gauge", (), _server(lambda s: s.run_times.trap),
            "Time that a uprobe's event costs the traced process beside the program's run, as measured on this host."),

    _Metric("bpf_exporter_map_info", "gauge", ("program", "map", "type"),
            lambda page: [((name, m.name, map_types.NAMES.get(m.type, str(m.type))), 1) for name, m in page.maps],
            "Type of the map; always 1."),
    _Metric("bpf_exporter_map_approximate", "gauge", _MAP, _map(lambda m: m.type in map_types.LRU_HASHES),
            "Whether the map evicts entries to make room (LRU, 1), with what they counted since they were last read."),
    _Metric("bpf_exporter_map_max_entries", "gauge", _MAP, _map(lambda m: m.max_entries),
            "Entries that the map has room for."),
    _Metric("bpf_exporter_map_memory_bytes", "gauge", _MAP, _map(lambda m: map_memory(m, _possible_cpus())),
            "Kernel memory of the map when it is full, with values for every possible CPU."),
    _Metric("bpf_exporter_map_entries", "gauge", _MAP, _counts(lambda r: r.entries),
            "Entries in the map when it was last read; maps without a metric are read every 30 s."),
    _Metric("bpf_exporter_map_insert_failures_total", "counter", _MAP, _counts(lambda r: r.insert_failures),
            "Events not counted because their map entry could not be inserted, mostly because the map was full."),
    _Metric("bpf_exporter_decoder_errors_total", "counter", ("program", "decoder"), _counts(lambda r: r.decoder_errors),
            "Values for which a decoder had no answer, that were not UTF-8, or that were too long for a label."),
    _Metric("bpf_exporter_metric_series", "gauge", _METRIC, _metric(lambda m: m.series),
            "Series that the metric shows; a histogram's buckets count as one."),
    _Metric("bpf_exporter_metric_folded_series", "gauge", _METRIC, _metric(lambda m: m.folded),
            'Label sets beyond max_series, which the metric adds up under the label value "other".'),
    _Metric("bpf_exporter_metric_dropped_series", "gauge", _METRIC, _metric(lambda m: m.dropped),
            "Map entries left out of the metric because a decoder has no answer for them and is told to drop them."),
    _Metric("bpf_exporter_metric_expired_series_total", "counter", _METRIC, _metric(lambda m: m.expired),
            "Label sets that ended because their map entries did not change for the ttl of the map."),

    # Names and texts as every Prometheus client library has them.
    _Metric("process_virtual_memory_bytes", "gauge", (), _process(lambda p: p.virtual),
            "Virtual memory size in bytes."),
    _Metric("process_resident_memory_bytes", "gauge", (), _process(lambda p: p.resident),
            "Resident memory size in bytes."),
    _Metric("process_start_time_seconds", "gauge", (), _process(lambda p: p.started),
            "Start time of the process since unix epoch in seconds."),
    _Metric("process_cpu_seconds_total", "counter", (), _process(lambda p: p.cpu),
            "Total user and system CPU time spent in seconds."),
    _Metric("process_open_fds", "gauge", (), _process(lambda p: p.descriptors),
            "Number of open file descriptors."),
    _Metric("process_max_fds", "gauge", (), _process(lambda p: p.most_descriptors),
            "Maximum number of open file descriptors."),
)
# fmt: on


class SelfMetrics:
    """The text of METRICS, scrape after scrape. A family whose samples stay the same is not written again."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[dict[tuple[str, ...], float], exposition.Text]] = {}  # with its samples

    def texts(
        self,
        programs: Sequence[Program],
        reports: Mapping[str, CollectReport],
        late: Mapping[str, int],
        status: ServerStatus,
    ) -> list[exposition.Text]:
        """Return the families that have a sample. `reports`: by program name, none of one that is not running;
        `late`: scrapes that each program's metrics were left out of."""
        maps = [(p.name, m) for p in programs for m in p.maps if not hidden(m.name, p.maps)]
        page = _Page(programs, maps, reports, late, status, own_process())
        return [text for metric in METRICS if (text := self._text(metric, page)) is not None]

    def _text(self, metric: _Metric, page: _Page) -> exposition.Text | None:
        samples = {labels: number for labels, number in metric.samples(page) if number is not None}
        if not samples:
            return None
        last = self._written.get(metric.name)
        if last is not None and last[0] == samples:
            return last[1]
        family = exposition.family(metric.name, metric.type, metric.help, metric.labels, samples.items())
        (text,) = exposition.write([family])
        self._written[metric.name] = (samples, text)
        return text
