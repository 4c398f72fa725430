"""An entry with `use:` and the program it names -> the program with the overrides applied."""

from __future__ import annotations

from exporter.config import document
from exporter.config.findings import Findings, quoted
from exporter.config.nodes import ListNode, MappingNode, Node, ScalarNode, at, key_at, without
from exporter.config.validate import Valid
from exporter.kernel.near import did_you_mean

_OF_EITHER_KIND = ("enabled", "optional", "budget", "lifetime")
# Keys of a program, and of one of its metrics, that `use` cannot change.
_FIXED = set(document.ProgramDocument.model_fields) - set(document.UseDocument.model_fields)
_FIXED_IN_METRIC = set(document.MetricDocument.model_fields) - set(document.MetricOverrideDocument.model_fields)


def changeable(node: Node, name: str, report: Findings) -> Node:
    """Return the entry without the keys that `use` cannot change, and report each of them."""
    if not isinstance(node, MappingNode):
        return node
    result: Node = node
    for key, _ in node.items:
        if key.text in _FIXED:
            right = "copy the program's two files and change the copy"
            report.error(key.mark, f"{name}: {key.text} cannot be changed with use; {right}")
            result = without(result, [key.text])
    written = node.get("metrics")
    for index, item in enumerate(written.items if isinstance(written, ListNode) else ()):
        for key, _ in item.items if isinstance(item, MappingNode) else ():
            if key.text in _FIXED_IN_METRIC:
                right = "only enabled and max_series; copy the program and change the copy"
                report.error(
                    key.mark,
                    f"{name}: {_metric(item, index)}: {key.text} cannot be changed with use, {right}",
                )
                result = without(result, ["metrics", index, key.text])
    return result


def _metric(item: Node, index: int) -> str:
    named = item.get("name") if isinstance(item, MappingNode) else None
    return f"metric {named.text}" if isinstance(named, ScalarNode) and named.text else f"metric number {index + 1}"


def apply(
    entry: Valid[document.ProgramDocument], valid: Valid[document.UseDocument], name: str, report: Findings
) -> Valid[document.ProgramDocument]:
    """Return `entry` with the overrides of `valid`, and report names that the program does not have. `name`: for
    messages."""
    use, program = valid.document, entry.document
    for key, value in use.defines.items():
        mark = key_at(valid.node, ["defines", key])
        if key not in program.defines:
            hint = did_you_mean(key, program.defines, otherwise="its defines are")
            report.error(mark, f"{name}: {use.use} has no define {quoted(key)}; {hint}")
        elif isinstance(program.defines[key], int) and not isinstance(value, int):
            report.error(
                at(valid.node, ["defines", key]).mark,
                f"{name}: define {key} is a number in {use.use} ({program.defines[key]}); write a number",
            )
    changed: dict[str, document.MetricOverrideDocument] = {}
    known = {metric.name for metric in program.metrics}
    for index, override in enumerate(use.metrics):
        mark = at(valid.node, ["metrics", index, "name"]).mark
        if override.name not in known:
            hint = did_you_mean(override.name, known, otherwise="its metrics are")
            report.error(mark, f"{name}: {use.use} has no metric {quoted(override.name)}; {hint}")
        elif override.name in changed:
            report.error(mark, f"{name}: metric {override.name} stands here a second time; keep one")
        changed[override.name] = override
    changes = {
        "name": use.name or use.use,
        "defines": {**program.defines, **use.defines},
        "metrics": [_changed(metric, changed.get(metric.name)) for metric in program.metrics],
        **{key: getattr(use, key) for key in _OF_EITHER_KIND if getattr(use, key) is not None},
    }
    return Valid(program.model_copy(update=changes), entry.node, entry.written)


def _changed(
    metric: document.MetricDocument, override: document.MetricOverrideDocument | None
) -> document.MetricDocument:
    if override is None:
        return metric
    return metric.model_copy(
        update={key: getattr(override, key) for key in ("enabled", "max_series") if getattr(override, key) is not None}
    )
