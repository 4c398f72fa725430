"""Checks of the options under `maps:` that need no layout."""

from __future__ import annotations

from exporter.config import document
from exporter.config.findings import Findings
from exporter.config.nodes import KeyPath, at, key_at
from exporter.config.validate import Valid, phrase


def check(entry: Valid[document.ProgramDocument], report: Findings) -> None:
    """Report every mistake in `maps:` and in the metrics of a drained map."""
    program, node = entry.document, entry.node
    drained = {name: options for name, options in program.maps.items() if options.drain}

    def error(path: KeyPath, text: str, at_key: bool = False) -> None:
        mark = key_at(node, path) if at_key else at(node, path).mark
        report.error(mark, f"{phrase(node, path, (program.name,))}{text}")

    for name, options in drained.items():
        given = {"ttl": options.ttl != 0, "seed": options.seed is not None, "zeros": not options.zeros}
        for key in (key for key, is_given in given.items() if is_given):
            error(("maps", name, key), f"{key} and drain exclude each other; keep one", at_key=True)
    for index, metric in enumerate(program.metrics):
        if metric.type == "gauge" and metric.map in drained:
            error(
                ("metrics", index, "map"),
                f"map {metric.map} is drained, and a gauge shows what is there; make it a counter, or leave drain out",
            )
