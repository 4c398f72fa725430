"""What the supervisor watches: what programs take of the CPU, and whether a crash would be remembered -> families."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from exporter.collecting.text.exposition import Family, family
from exporter.ipc.run_times import RunTimes

_LABELS = ("program",)
_COUNTED = "only where every run is counted, with --overhead.stats=always or the sysctl kernel.bpf_stats_enabled."


def families(times: RunTimes, armed: bool | None, chosen: Collection[str]) -> list[Family]:
    """Of the chosen programs. `armed`: None where there is no quarantine. What nobody has measured has no sample."""
    return [*_programs(times, chosen), *_host(times, armed)]


def _programs(times: RunTimes, chosen: Collection[str]) -> Iterator[Family]:
    programs = [(name, each) for name, each in times.programs.items() if name in chosen]
    yield _family(
        "bpf_exporter_program_cpu_ratio",
        "gauge",
        "CPU seconds per second that the program took, over all CPUs and with the traps of uprobes, in the last window "
        "in which run times were taken: 1 s of 30 s unless flags say otherwise.",
        {name: each.share for name, each in programs},
    )
    yield _family(
        "bpf_exporter_program_budget_ratio",
        "gauge",
        "CPU seconds per second that the program may take before it is detached.",
        {name: each.budget for name, each in programs},
    )
    yield _family(
        "bpf_exporter_program_budget_exceeded_total",
        "counter",
        "How often the program was detached because it took more than its budget.",
        {name: None if each.budget is None else each.exceeded for name, each in programs},
    )
    yield _family(
        "bpf_exporter_program_run_seconds_total",
        "counter",
        f"Time that runs of the program took, over all CPUs, without the traps of uprobes; {_COUNTED}",
        {name: each.seconds for name, each in programs},
    )
    yield _family(
        "bpf_exporter_program_runs_total",
        "counter",
        f"Runs of the program; {_COUNTED}",
        {name: each.runs for name, each in programs},
    )
    yield _family(
        "bpf_exporter_program_missed_runs_total",
        "counter",
        "Events that the program did not see because it, or another one, was running on that CPU; read every 30 s.",
        {name: each.missed for name, each in programs},
    )


def _host(times: RunTimes, armed: bool | None) -> Iterator[Family]:
    yield family(
        "bpf_exporter_quarantine_armed",
        "gauge",
        "1 if programs are written down before they are attached, so that none crashes this host twice.",
        (),
        [] if armed is None else [((), int(armed))],
    )
    yield family(
        "bpf_exporter_uprobe_trap_seconds",
        "gauge",
        "What an event of a uprobe costs the process beside the program's run, as it was measured on this host.",
        (),
        [] if times.trap is None else [((), times.trap)],
    )


def _family(
    name: str,
    type: Literal["counter", "gauge"],  # noqa: A002 (the format's word)
    help: str,  # noqa: A002
    values: dict[str, float | None],
) -> Family:
    return family(name, type, help, _LABELS, [((name,), value) for name, value in values.items() if value is not None])
