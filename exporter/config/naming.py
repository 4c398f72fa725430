"""Warnings for metric and label names that promtool and the guide of Prometheus reject.

Rules: https://prometheus.io/docs/practices/naming/ and `promtool check metrics` (client_golang, promlint).
"""

from __future__ import annotations

import re

from exporter.config import document
from exporter.config.findings import Findings
from exporter.config.metrics import last_part
from exporter.config.nodes import KeyPath, Node
from exporter.config.validate import ProgramReport

# Word in a name -> the base unit that should replace it.
_NOT_BASE = {
    **dict.fromkeys(("ns", "us", "ms", "nanoseconds", "microseconds", "milliseconds"), "seconds"),
    **dict.fromkeys(("minutes", "hours", "days", "jiffies"), "seconds"),
    **dict.fromkeys(("kb", "kib", "mb", "mib", "gb", "gib", "kilobytes", "megabytes", "gigabytes", "bits"), "bytes"),
    **dict.fromkeys(("percent", "percentage"), "ratio"),
    "pages": "bytes",
}
_TYPE_WORDS = {"counter", "gauge", "histogram", "summary"}
_TARGET_LABELS = {
    "job",
    "instance",
}  # Prometheus sets them; ours would become exported_job, exported_instance
_CAMEL = re.compile("[a-z0-9][A-Z]")


def check(program: document.ProgramDocument, node: Node, report: Findings) -> None:
    """Warn of every unusual name in the metrics of `program`."""
    program_report = ProgramReport(program.name, node, report)
    for index, metric in enumerate(program.metrics):
        path: KeyPath = ("metrics", index)
        for text in complaints(metric.name, metric.type):
            program_report.warn((*path, "name"), text)
        if not metric.help:
            program_report.warn(path, '"help" is missing; write one sentence that Prometheus shows')
        for number, label in enumerate(metric.labels or ()):
            name = label.name or last_part(label.field) or ""
            if name in _TARGET_LABELS:
                text = f"Prometheus sets {name} itself and will call this one exported_{name}; choose another name"
            elif name == "quantile":
                text = "quantile is the label of summaries; choose another name"
            elif _CAMEL.search(name):
                text = f"the name is in camelCase; write {snake(name)}"
            else:
                continue
            program_report.warn((*path, "labels", number, "name"), text)


def complaints(name: str, kind: str) -> list[str]:
    """Return what is unusual about a metric's name, each with the usual form."""
    found: list[str] = []
    words = name.removesuffix("_total").split("_")
    if kind == "counter" and not name.endswith("_total"):
        found.append(f"counters end in _total; write {name}_total")
    if kind != "counter" and name.endswith("_total"):
        found.append(f"_total is for counters, and this is a {kind}; write {name.removesuffix('_total')}")
    found += [
        f"{suffix} is for the series of a histogram; leave it out or choose another word"
        for suffix in ("_count", "_sum", "_bucket")
        if name.endswith(suffix)
    ]
    for word in words:
        if word in _NOT_BASE:
            found.append(f"{word} is no base unit; write {_NOT_BASE[word]}, and scale: if the map has another unit")
        if word in _TYPE_WORDS:
            found.append(f"the type {word} does not belong in the name; leave it out")
    if ":" in name:
        found.append("colons are for recording rules; write _")
    if _CAMEL.search(name):
        found.append(f"the name is in camelCase; write {snake(name)}")
    return found


def snake(name: str) -> str:
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).lower()
