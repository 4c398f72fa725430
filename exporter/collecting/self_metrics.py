"""States and reports -> the text of families that say how the exporter itself is doing."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Literal

from exporter import __version__
from exporter.binding.map_memory import map_memory
from exporter.collecting import watched
from exporter.collecting.collector import CollectReport
from exporter.collecting.text import exposition
from exporter.collecting.text.exposition import Family, Text, family
from exporter.collecting.text.renumbered import KeptTemplate, Samples
from exporter.ipc.run_times import RunTimes
from exporter.kernel import cpus, map_types
from exporter.kernel.own_process import OwnProcess, own_process
from exporter.program import Program, Reason, State, hidden

_possible_cpus = cache(cpus.possible)  # as long as the machine is up


@dataclass(frozen=True, slots=True)
class Configuration:
    """How reading the configuration went, as the supervisor tells it (reload.Report)."""

    sha256: str
    timestamp: float  # Unix time
    successful: bool
    disabled: bool
    reloads: int
    failures: int


@dataclass(frozen=True, slots=True)
class WebConfiguration:
    """How reading the file of --web.config.file went last, and when it was right (Unix time)."""

    successful: bool
    timestamp: float


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How the server and what is above it are doing.

    unprivileged  whether the server has no capability
    restarts      how often it died
    connected     whether its supervisor is there
    armed         whether a crash would be remembered; None where there is no quarantine
    """

    unprivileged: bool
    restarts: int = 0
    connected: bool = True
    web: WebConfiguration | None = None
    configuration: Configuration | None = None
    run_times: RunTimes = field(default_factory=RunTimes)
    armed: bool | None = None


class SelfMetrics:
    """The text of all this, scrape after scrape: what has not changed is not written again, and of what always changes
    only the numbers are. A host with a thousand series would spend more time on it than on them."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[tuple[object, ...], Text]] = {}  # and what it was made of
        self._reported = KeptTemplate()
        self._moving = KeptTemplate()

    def texts(
        self,
        programs: Sequence[Program],
        reports: Mapping[str, CollectReport],
        late: Mapping[str, int],
        standing: ServerStatus,
    ) -> list[Text]:
        """Everything but the metrics of the programs. `reports` by program name; a program that is not running has
        none. `late`: scrapes that programs were left out of. Families without a sample are left out."""
        names = {program.name for program in programs}
        return [
            self._kept("standing", (standing,), lambda: _text(_standing(standing))),
            self._kept("programs", tuple(programs), lambda: _text([*_loading(programs), *_maps(programs)])),
            self._kept(
                "reports",
                (dict(reports), dict(late)),
                lambda: self._reported.text([*_filling(reports), *_found(reports, late)]),
            ),
            self._kept(
                "watched",
                (standing.run_times, standing.armed, names),
                lambda: _text(watched.families(standing.run_times, standing.armed, names)),
            ),
            self._moving.text([_durations(reports), *_process(own_process())]),
        ]

    def _kept(self, group: str, of: tuple[object, ...], write: Callable[[], Text]) -> Text:
        last = self._written.get(group)
        if last is None or last[0] != of:
            self._written[group] = last = (of, write())
        return last[1]


def _text(families: Iterable[Family]) -> Text:
    return exposition.joined(exposition.write(f for f in families if f.series.sets))


def _standing(standing: ServerStatus) -> Iterator[Family]:
    yield from _server(standing)
    if standing.web is not None:
        yield from _web(standing.web)
    if standing.configuration is not None:
        yield from _configuration(standing.configuration)


def _server(standing: ServerStatus) -> Iterator[Family]:
    yield family(
        "bpf_exporter_build_info",
        "gauge",
        "The exporter's version, always 1.",
        ("version", "python_version"),
        [((__version__, platform.python_version()), 1)],
    )
    yield family(
        "bpf_exporter_server_unprivileged",
        "gauge",
        "1 if the process that answers scrapes has no capability at all.",
        (),
        [((), int(standing.unprivileged))],
    )
    yield family(
        "bpf_exporter_server_restarts_total",
        "counter",
        "How often the process that answers scrapes died and was started again.",
        (),
        [((), standing.restarts)],
    )
    yield family(
        "bpf_exporter_supervisor_connected",
        "gauge",
        "1 if the process that keeps the programs is there; without it, maps are read as it left them.",
        (),
        [((), int(standing.connected))],
    )


def _configuration(configuration: Configuration) -> Iterator[Family]:
    yield family(
        "bpf_exporter_config_info",
        "gauge",
        "SHA-256 over all files of the configuration that runs, always 1; hosts with equal files have equal ones.",
        ("sha256",),
        [((configuration.sha256,), 1)],
    )
    yield family(
        "bpf_exporter_config_last_reload_successful",
        "gauge",
        "1 if what runs is what the files said when they were last read.",
        (),
        [((), int(configuration.successful))],
    )
    yield family(
        "bpf_exporter_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the configuration that runs was read, in Unix time.",
        (),
        [((), configuration.timestamp)],
    )
    yield family(
        "bpf_exporter_config_reloads_total",
        "counter",
        "How often the configuration was read again.",
        (),
        [((), configuration.reloads)],
    )
    yield family(
        "bpf_exporter_config_reload_failures_total",
        "counter",
        "How often what ran after that was not what the files said.",
        (),
        [((), configuration.failures)],
    )
    yield family(
        "bpf_exporter_disabled",
        "gauge",
        "1 if nothing is attached because the file of --config.disable-file exists.",
        (),
        [((), int(configuration.disabled))],
    )


def _web(web: WebConfiguration) -> Iterator[Family]:
    yield family(
        "bpf_exporter_web_config_last_reload_successful",
        "gauge",
        "1 if the web configuration in use is what its files said when they were last read.",
        (),
        [((), int(web.successful))],
    )
    yield family(
        "bpf_exporter_web_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the web configuration in use was read, in Unix time.",
        (),
        [((), web.timestamp)],
    )


def _loading(programs: Sequence[Program]) -> Iterator[Family]:
    yield family(
        "bpf_exporter_program_state",
        "gauge",
        "1 for the state that the program is in, 0 for the others.",
        ("program", "state"),
        [((p.name, state.value), int(p.state is state)) for p in programs for state in State],
    )
    yield family(
        "bpf_exporter_program_info",
        "gauge",
        "The variant in use and the SHA-256 of the program's C text, always 1.",
        ("program", "variant", "source_sha256"),
        [((p.name, p.variant, p.source_sha256), 1) for p in programs],
    )
    yield family(
        "bpf_exporter_program_variant_info",
        "gauge",
        'Variants that are not used, and programs that do not run (variant ""), with the reason, always 1.',
        ("program", "variant", "reason"),
        {(p.name, variant, reason.value): 1 for p in programs for variant, reason in _unused(p)}.items(),
    )
    yield family(
        "bpf_exporter_program_attached",
        "gauge",
        "1 if the attach point is attached, 0 if it is optional and could not be.",
        ("program", "kind", "target", "function", "reason"),
        {
            (p.name, a.kind, a.target, a.function, a.reason.value): int(a.attached)
            for p in programs
            for a in p.attachments
        }.items(),
    )
    yield family(
        "bpf_exporter_program_compile_seconds",
        "gauge",
        "Time that compiling the program took, 0 if it came from the cache.",
        ("program",),
        [((p.name,), float(p.compile_seconds)) for p in programs if p.state is State.RUNNING],
    )


def _unused(program: Program) -> Iterator[tuple[str, Reason]]:
    """Variants that were tried and not used; the program itself where that is not the reason that it does not run."""
    for attempt in program.attempts:
        yield attempt.variant, attempt.reason
    if program.reason and not program.attempts:
        yield "", program.reason


def _maps(programs: Sequence[Program]) -> Iterator[Family]:
    labels = ("program", "map")
    maps = [(p.name, m) for p in programs for m in p.maps if not hidden(m.name, p.maps)]
    yield family(
        "bpf_exporter_map_info",
        "gauge",
        "The type of the map, always 1.",
        ("program", "map", "type"),
        [((name, m.name, map_types.NAMES.get(m.type, str(m.type))), 1) for name, m in maps],
    )
    yield family(
        "bpf_exporter_map_approximate",
        "gauge",
        "1 if the map forgets entries to make room (LRU), and what they counted since they were last read with them.",
        labels,
        [((name, m.name), int(m.type in map_types.LRU_HASHES)) for name, m in maps],
    )
    yield family(
        "bpf_exporter_map_max_entries",
        "gauge",
        "Entries that the map has room for.",
        labels,
        [((name, m.name), m.max_entries) for name, m in maps],
    )
    yield family(
        "bpf_exporter_map_memory_bytes",
        "gauge",
        "Kernel memory of the map when it is full, with values for every possible CPU.",
        labels,
        [((name, m.name), map_memory(m, _possible_cpus())) for name, m in maps],
    )


def _filling(reports: Mapping[str, CollectReport]) -> Iterator[Samples]:
    labels = ("program", "map")
    yield Samples(
        "bpf_exporter_map_entries",
        "gauge",
        "Entries in the map when it was last read; maps without a metric are read every 30 seconds.",
        labels,
        [((name, map_), n) for name, report in reports.items() for map_, n in report.entries.items()],
    )
    yield Samples(
        "bpf_exporter_map_insert_failures_total",
        "counter",
        "Events that were not counted because their entry could not be inserted, mostly because the map was full.",
        labels,
        [((name, map_), n) for name, report in reports.items() for map_, n in report.insert_failures.items()],
    )


def _durations(reports: Mapping[str, CollectReport]) -> Samples:
    return Samples(
        "bpf_exporter_program_collect_duration_seconds",
        "gauge",
        "Time that reading the program's maps and making its metrics took.",
        ("program",),
        [((name,), report.seconds) for name, report in reports.items()],
    )


def _found(reports: Mapping[str, CollectReport], late: Mapping[str, int]) -> Iterator[Samples]:
    yield Samples(
        "bpf_exporter_program_collect_success",
        "gauge",
        "1 if all of the program's metrics could be collected.",
        ("program",),
        [((name,), int(report.success)) for name, report in reports.items()],
    )
    yield Samples(
        "bpf_exporter_program_late_scrapes_total",
        "counter",
        "Scrapes that the program's metrics were left out of, because the scraper would not have waited for them.",
        ("program",),
        [((name,), late.get(name, 0)) for name in reports],
    )
    yield Samples(
        "bpf_exporter_decoder_errors_total",
        "counter",
        "Values for which a decoder had no answer, that were not UTF-8, or that were too long for a label.",
        ("program", "decoder"),
        [((name, decoder), n) for name, report in reports.items() for decoder, n in report.decoder_errors.items()],
    )
    labels = ("program", "metric")
    metrics = [((name, metric), m) for name, report in reports.items() for metric, m in report.metrics.items()]
    yield Samples(
        "bpf_exporter_metric_series",
        "gauge",
        "Label sets that the metric shows.",
        labels,
        [(which, m.series) for which, m in metrics],
    )
    yield Samples(
        "bpf_exporter_metric_folded_series",
        "gauge",
        'Label sets beyond max_series, which the metric shows as "other".',
        labels,
        [(which, m.folded) for which, m in metrics],
    )
    yield Samples(
        "bpf_exporter_metric_dropped_series",
        "gauge",
        "Map entries that the metric leaves out because a decoder has no answer and says drop.",
        labels,
        [(which, m.dropped) for which, m in metrics],
    )
    yield Samples(
        "bpf_exporter_metric_expired_series_total",
        "counter",
        "Label sets that ended because their map entries did not change for the ttl of the map.",
        labels,
        [(which, m.expired) for which, m in metrics if m.expired is not None],
    )


# Names and texts as every Prometheus client library has them, and what of an OwnProcess each shows.
_PROCESS: tuple[tuple[str, Literal["counter", "gauge"], str, str], ...] = (
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", "virtual"),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", "resident"),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", "started"),
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", "cpu"),
    ("process_open_fds", "gauge", "Number of open file descriptors.", "descriptors"),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors.", "most_descriptors"),
)
_process_numbers = attrgetter(*(shows for *_, shows in _PROCESS))


def _process(now: OwnProcess | None) -> Iterator[Samples]:
    """None where nobody can tell."""
    numbers = [None] * len(_PROCESS) if now is None else _process_numbers(now)
    for (name, kind, text, _), number in zip(_PROCESS, numbers, strict=True):
        yield Samples(name, kind, text, (), [] if number is None else [((), number)])
