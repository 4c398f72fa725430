"""Metric documents -> MetricSpec, with every check that needs no layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter import decoders
from exporter.config import document
from exporter.config.findings import Findings
from exporter.config.nodes import KeyPath, MappingNode, Node, ScalarNode, at, quote_it
from exporter.config.validate import ProgramReport, Valid, phrase
from exporter.spec import BucketSpec, DecodeStep, LabelSpec, MetricSpec

HISTOGRAM_KEYS = ("slots", "sum", "slot", "sum_slot", "buckets")
OTHER_KEYS = ("value",)  # not of a histogram
LARGEST_EXP2 = 63  # a slot of 2^64 is beyond every u64


@dataclass(frozen=True, slots=True)
class _CheckedMetric:
    """One metric that is checked, and its path in the tree of its program."""

    metric: document.MetricDocument
    path: KeyPath
    report: ProgramReport

    def error(self, text: str, *keys: str | int, at_key: bool = False) -> None:
        """Report a mistake at the value of `keys` below this metric, with `at_key` at the last key itself."""
        self.report.error((*self.path, *keys), text, at_key)


def metrics(entry: Valid[document.ProgramDocument], report: Findings) -> list[MetricSpec]:
    """Return the metrics of a program and report mistakes; the result is complete only without mistakes."""
    program, node = entry.document, entry.node
    program_report = ProgramReport(program.name, node, report)
    found: list[MetricSpec] = []
    if entry.wrote_empty("metrics"):
        program_report.error(["metrics"], "metrics is an empty list; write at least one metric")
    first: dict[str, tuple[int, document.MetricDocument]] = {}
    for index, metric in enumerate(program.metrics):
        checked = _CheckedMetric(metric, ("metrics", index), program_report)
        _check_kind(checked)
        _check_labels(checked)
        if metric.type == "histogram":
            _check_histogram(checked)
        if metric.name in first:
            _check_same(checked, node, *first[metric.name])
        else:
            first[metric.name] = (index, metric)
        found.append(resolve(metric))
    return found


def resolve(metric: document.MetricDocument) -> MetricSpec:
    labels = None
    if metric.labels is not None:
        labels = [
            LabelSpec(
                name=label.name or last_part(label.field) or "",
                field=label.field,
                const=label.const,
                decode=label.decode,
            )
            for label in metric.labels
        ]
    buckets = None if metric.buckets is None else BucketSpec(**metric.buckets.model_dump())
    copied = metric.model_dump(exclude={"labels", "buckets"})
    return MetricSpec(**copied, labels=labels, buckets=buckets)


def last_part(field: str | None) -> str | None:
    """Return the default name of a label, the last part of its field; None for `key` and a[2]."""
    if field is None or field == "key":
        return None
    last = field.rsplit(".", 1)[-1]
    return None if "[" in last else last


def _check_kind(checked: _CheckedMetric) -> None:
    metric = checked.metric
    if metric.type == "histogram":
        for key in OTHER_KEYS:
            if key in metric.model_fields_set:
                checked.error(f"{key} is not for a histogram; name its slots by slots or slot", key, at_key=True)
    else:
        for key in HISTOGRAM_KEYS:
            if key in metric.model_fields_set:
                checked.error(
                    f"{key} is only for a histogram; write type: histogram, or leave it out", key, at_key=True
                )
    if metric.type != "gauge":
        if metric.reduce != "sum":
            checked.error(f"a {metric.type} cannot be reduced by {metric.reduce}; write sum, or type: gauge", "reduce")
        if metric.type == "counter" and metric.value == 1:
            checked.error("value 1 counts entries, and those can go; write type: gauge", "value")
    if metric.name.startswith(("bpf_exporter_", "process_")):
        prefix = metric.name.split("_")[0] if metric.name.startswith("process_") else "bpf_exporter"
        checked.error(f"names with {prefix}_ in front are the exporter's own; choose another, like ebpf_", "name")


def _check_labels(checked: _CheckedMetric) -> None:
    seen: set[str] = set()
    for index, label in enumerate(checked.metric.labels or ()):
        path = ("labels", index)
        if (label.field is None) == (label.const is None):
            both = label.field is not None
            wrong = "field and const exclude each other; keep one" if both else "neither field nor const; write one"
            checked.error(wrong, *path)
            continue
        name = label.name or last_part(label.field)
        if name is None:
            checked.error(f'"name" is missing; with {label.field or "const"} write name: LABEL', *path)
            continue
        where = (*path, "name") if label.name else (*path, "field")
        if name in seen:
            checked.error(f"label {name} stands here a second time; give it another name", *where)
        seen.add(name)
        if name == "le":
            checked.error("le is the label of histogram buckets; choose another name", *where)
        elif name.startswith("__"):
            checked.error("names with __ in front are Prometheus' own; choose another", *where)
        if label.field is not None and label.field == checked.metric.slot:
            checked.error(f"{label.field} is the slot of the histogram and cannot be a label; leave it out", *path)
        if label.decode is not None:
            if label.const is not None:
                checked.error("a const label has nothing to decode; leave decode out", *path, "decode", at_key=True)
            elif label.field == "cpu":
                checked.error("cpu is the number of a CPU; leave decode out", *path, "decode", at_key=True)
            else:
                _check_chain(checked, label.decode, (*path, "decode"))


def _check_chain(checked: _CheckedMetric, chain: Sequence[DecodeStep], path: tuple[str | int, ...]) -> None:
    if any(
        _check_map(checked, at(checked.report.node, (*checked.path, *path, index)), (*path, index))
        for index in range(len(chain))
    ):
        return
    for text in decoders.check_chain(chain):
        checked.error(text, *path)


def _check_map(checked: _CheckedMetric, step: Node, path: tuple[str | int, ...]) -> bool:
    """Report texts of a `map` decoder that YAML does not read as text (`0: no` is false); return True if there are
    any."""
    texts = step.get("map") if isinstance(step, MappingNode) else None
    if not isinstance(texts, MappingNode):
        return False
    wrong = False
    for key, text in texts.items:
        if not isinstance(text, ScalarNode):
            checked.error(f"map: {key.text} has no text; write {key.text}: TEXT", *path)
            wrong = True
        elif not isinstance(text.value, str):
            words = phrase(checked.report.node, (*checked.path, *path), (checked.report.program,))
            read = "nothing" if text.value is None else "a number"
            if isinstance(text.value, bool):
                read = "true" if text.value else "false"
            sentence = f"map: {key.text}: {text.text or 'nothing'} is read by YAML as {read}; {quote_it(text)}"
            checked.report.findings.error(text.mark, words + sentence)
            wrong = True
    return wrong


def _check_histogram(checked: _CheckedMetric) -> None:
    metric = checked.metric
    buckets = metric.buckets
    if metric.slot is None:
        if metric.sum_slot is not None:
            checked.error("sum_slot goes with slot; with slots name the sum by sum", "sum_slot", at_key=True)
    else:
        for key, right in (("slots", "keep one"), ("sum", "name the slot that holds the sum by sum_slot")):
            if getattr(metric, key) is not None:
                checked.error(f"{key} and slot exclude each other; {right}", key, at_key=True)
        if buckets is None:
            checked.error('"buckets" is missing; with slot write buckets: {type: exp2, min: 0, max: 26}')
    if buckets is not None:
        _check_buckets(checked, buckets)


def _check_buckets(checked: _CheckedMetric, buckets: document.BucketsDocument) -> None:
    def error(text: str, key: str | None = None) -> None:
        checked.error(text if key else f"buckets: {text}", "buckets", *([key] if key else []))

    kind, low, high = buckets.type, buckets.min, buckets.max
    for key, only in (("width", "linear"), ("bounds", "fixed"), ("slot_is_bound", "fixed")):
        if key in buckets.model_fields_set and kind != only:
            error(f"{key} is only for type {only}; leave it out, or write type: {only}", key)
    if low is not None and high is not None and low > high:
        error(f"min {low} is above max {high}; write min: {high} or less", "min")
    if kind == "linear" and (buckets.width is None or buckets.width <= 0):
        wrong = '"width" is missing' if buckets.width is None else f"width {buckets.width:g} is not above 0"
        error(f"{wrong}; write width: the size of one bucket", None if buckets.width is None else "width")
    if kind == "fixed":
        _check_bounds(buckets, error)
    highest = LARGEST_EXP2 + (kind == "exp2zero")
    if kind in ("exp2", "exp2zero") and high is not None and high > highest:
        error(f"max {high} would be a bound above 2^{LARGEST_EXP2}; write max: {highest} or less", "max")
    if checked.metric.slot is not None and kind != "fixed" and high is None:
        error('"max" is missing; with slot write max: the slot of the last bound')
    sum_slot = checked.metric.sum_slot
    if sum_slot is not None and high is not None and (low or 0) <= sum_slot <= high:
        checked.error(f"sum_slot {sum_slot} is one of the slots {low or 0} to {high}; write {high + 1}", "sum_slot")


def _check_bounds(buckets: document.BucketsDocument, error: Callable[[str, str | None], None]) -> None:
    bounds, high = buckets.bounds, buckets.max
    if not bounds:
        wrong = '"bounds" is missing' if bounds is None else "bounds is an empty list"
        error(f"{wrong}; write bounds: [100, 1000, 5000]", None if bounds is None else "bounds")
        return
    for before, after in pairwise(bounds):
        if after <= before:
            error(f"bounds do not rise: {after:g} comes after {before:g}; sort them, each once", "bounds")
            return
    if buckets.slot_is_bound:
        if any(bound < 0 or bound != int(bound) for bound in bounds):
            error("with slot_is_bound a slot holds the bound; write bounds that are whole numbers", "bounds")
    elif high is not None and high >= len(bounds):
        error(f"max {high} has no bound; write max: {len(bounds) - 1} or less, or more bounds", "max")


def _check_same(checked: _CheckedMetric, node: Node, index: int, first: document.MetricDocument) -> None:
    """Report differences to the earlier metric of the same name: both are one family."""
    line = at(node, ("metrics", index)).mark.line
    metric = checked.metric
    for key in ("type", "help", "scale"):
        if getattr(metric, key) != getattr(first, key):
            checked.error(f"{key} is not that of the metric of this name on line {line}; write the same", key)
    names = [_label_names(each) for each in (metric, first)]
    if None not in names and names[0] != names[1]:
        there = ", ".join(sorted(names[1] or ())) or "none"
        checked.error(f"the labels are not those of the metric of this name on line {line}; write {there}", "labels")


def _label_names(metric: document.MetricDocument) -> frozenset[str] | None:
    """Return the names of the labels; None where they depend on the map's layout."""
    if metric.labels is None:
        return None
    return frozenset(label.name or last_part(label.field) or "" for label in metric.labels)
