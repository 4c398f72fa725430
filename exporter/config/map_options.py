"""Checks of the options under `maps:` that need no layout."""

from __future__ import annotations

from exporter.config import document
from exporter.config.findings import Findings
from exporter.config.validate import ProgramReport, Valid


def check(entry: Valid[document.ProgramDocument], report: Findings) -> None:
    """Report every mistake in `maps:` and in the metrics of a drained map."""
    program = entry.document
    program_report = ProgramReport(program.name, entry.node, report)
    drained = {name: options for name, options in program.maps.items() if options.drain}

    for name, options in drained.items():
        given = {"ttl": options.ttl != 0, "seed": options.seed is not None, "zeros": not options.zeros}
        for key in (key for key, is_given in given.items() if is_given):
            program_report.error(("maps", name, key), f"{key} and drain exclude each other; keep one", at_key=True)
    for index, metric in enumerate(program.metrics):
        if metric.type == "gauge" and metric.map in drained:
            program_report.error(
                ("metrics", index, "map"),
                f"map {metric.map} is drained, and a gauge shows what is there; make it a counter, or leave drain out",
            )
