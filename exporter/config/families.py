"""Checks across all programs: names that occur twice, and metrics that would share a family."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.config.findings import Findings, Mark
from exporter.config.merge import MarkedProgram

# Names of series that the formats derive from a metric's name: https://prometheus.io/docs/specs/om/open_metrics_spec/#suffixes
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "gauge": (),
}


def check(programs: list[MarkedProgram], report: Findings) -> None:
    """Report program names that occur twice, and metrics of enabled programs that share a name or a family."""
    names: dict[str, Mark] = {}
    for marked in programs:
        name = marked.program.name
        if name in names:
            there = _where(names[name], marked.mark)
            report.error(
                marked.mark,
                f"{name}: a program of this name stands {there} already; write name: and another one",
            )
        else:
            names[name] = marked.mark
    owners: dict[str, tuple[MarkedProgram, str]] = {}
    for marked in programs:
        for metric, taken in _families(marked):
            for series in taken:
                owner, other = owners.setdefault(series, (marked, metric))
                # A program name that occurs twice is one mistake, not one for each metric.
                if (other == metric and owner is marked) or (
                    owner is not marked and owner.program.name == marked.program.name
                ):
                    continue
                where = "" if owner is marked else f" of program {owner.program.name}"
                mark = marked.metrics.get(metric, marked.mark)
                prefix = f"{marked.program.name}: metric {metric}: "
                if other == metric:
                    right = "give one another name, or disable one"
                    report.error(mark, f"{prefix}the same name as the metric{where}; {right}")
                else:
                    report.error(mark, f"{prefix}would be one family with {other}{where} ({series}); rename one")
                break


def _families(marked: MarkedProgram) -> Iterator[tuple[str, list[str]]]:
    """Yield the metrics of an enabled program, each name once, with the names of series that it reserves."""
    seen: set[str] = set()
    for metric in marked.program.metrics:
        if not (marked.program.enabled and metric.enabled) or metric.name in seen:
            continue
        seen.add(metric.name)
        base = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
        yield (
            metric.name,
            list(dict.fromkeys([metric.name, base, *(base + s for s in _SUFFIXES[metric.type])])),
        )


def _where(first: Mark, here: Mark) -> str:
    return f"on line {first.line}" if first.file == here.file else f"in {first.file}:{first.line}"
