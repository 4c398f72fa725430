"""Nodes -> documents (document.py): every mistake with its position, and the tree without the broken parts."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from exporter.config.document import Document, describe
from exporter.config.findings import Findings, quoted
from exporter.config.nodes import KeyPath, ListNode, MappingNode, Node, ScalarNode, at, key_at, plain, quote_it, without
from exporter.kernel.near import did_you_mean

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Valid(Generic[D]):
    """A valid document and its nodes, with equal indices; parts with mistakes are only in `written`."""

    document: D
    node: Node
    written: Node

    def wrote(self, key: str) -> bool:
        """Return True if the file has `key`, right or wrong: else its absence is a mistake."""
        return isinstance(self.written, MappingNode) and self.written.get(key) is not None

    def wrote_empty(self, key: str) -> bool:
        """Return True if the file has `key` with an empty list."""
        value = self.written.get(key) if isinstance(self.written, MappingNode) else None
        return isinstance(value, ListNode) and not value.items


def validate(model: type[D], node: Node, report: Findings, words: KeyPath = ()) -> Valid[D] | None:
    """Report every mistake in `node`; return the valid part of it, None if there is none.

    `words` precede every sentence (the program's name).
    """
    written = node
    errors = _errors(model, node)
    for error in errors:
        _report(model, node, error, report, words)
    # Cross-checks get the tree without the broken items. The second round removes items that broke by the first.
    for _ in range(3):
        if not errors:
            return Valid(model.model_validate(plain(node)), node, written)
        for path in sorted({_cut(error) for error in errors}, reverse=True, key=_by_index):
            if not path:
                return None
            node = without(node, path)
        errors = _errors(model, node)
    return None


def _errors(model: type[Document], node: Node) -> list[ErrorDetails]:
    try:
        model.model_validate(plain(node))
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []


def _by_index(path: KeyPath) -> tuple[tuple[str, int], ...]:
    """Return the sort key by which later list items are removed before earlier ones."""
    return tuple((step, -1) if isinstance(step, str) else ("", step) for step in path)


def _cut(error: ErrorDetails) -> tuple[str | int, ...]:
    """Return the part to remove for an error: the outermost list item (a metric, a variant), a define, else the top
    key."""
    loc = _real_path(error["loc"])
    if error["type"] == "missing":
        loc = loc[:-1]
    for length, step in enumerate(loc, 1):
        if isinstance(step, int):
            return tuple(loc[:length])
    return tuple(loc[: 2 if loc[:1] in (("defines",), ("maps",)) else 1])


def _real_path(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return pydantic's location without the steps that it adds for keys of mappings."""
    return tuple(step for step in loc if step != "[key]")


def _report(model: type[Document], node: Node, error: ErrorDetails, report: Findings, words: KeyPath) -> None:
    path = _real_path(error["loc"])
    kind = error["type"]
    is_key = "[key]" in error["loc"]
    target = at(node, path)
    mark = target.mark
    if kind == "extra_forbidden" or kind == "invalid_key" or is_key:
        mark = key_at(node, path)
    elif kind == "missing":
        parent = at(node, path[:-1])
        mark = parent.mark
        other = _OTHER_WAY.get(str(path[-1]))
        if other is not None and isinstance(parent, MappingNode) and parent.get(other) is not None:
            return  # it is written in a form that is not supported, which is reported
    if report.has_error_at(mark):
        return  # a finding of YAML explains it already
    prefix = phrase(node, path, words)
    report.error(mark, f"{prefix}{_sentence(model, path, error, target, is_key)}")


def _sentence(model: type[Document], path: KeyPath, error: ErrorDetails, target: Node, is_key: bool) -> str:
    kind, context = error["type"], error.get("ctx", {})
    key = str(path[-1]) if path else "this"
    if kind in ("extra_forbidden", "invalid_key"):
        return unknown_key(document_at(model, path[:-1]), key)
    if kind == "missing":
        about = describe(document_at(model, path[:-1]), key)
        return f'"{key}" is missing; write {key}: {about}' if about else f'"{key}" is missing; write it'
    if is_key:
        return f'the key "{key}" {error["msg"]}'
    name = _name_of(path)
    if kind == "config":
        return f"{name}{_shown(target)}{error['msg']}"
    if kind == "literal_error":
        allowed = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        text = target.text if isinstance(target, ScalarNode) else ""
        return f"{name}{_shown(target)}is not known; {did_you_mean(text, allowed, otherwise='write one of')}"
    if kind == "greater_than_equal":
        return f"{name}{_shown(target)}is too small; write {context['ge']} or more"
    if kind == "less_than_equal":
        return f"{name}{_shown(target)}is too large; write {context['le']} or less"
    if kind in _EXPECTED:
        return f"{name}is {_kind(target)}; {_right(kind, target)}"
    return f"{name}{_shown(target)}is not right: {error['msg'].lower()}; see docs/configuration.md"


def unknown_key(document: type[Document] | None, key: str) -> str:
    """Return the sentence for a key that the document does not have."""
    if document is None:
        return f'unknown key "{key}"; leave it out'
    if key in document.not_built:
        return f'"{key}" is not built in this version; {document.not_built[key]}'
    hint = did_you_mean(key, document.model_fields, otherwise="the keys here are")
    return f'unknown key "{key}"; {hint}'


# Required keys, and the unsupported keys that replace them.
_OTHER_WAY = {"map": "events"}

_EXPECTED = {
    "string_type": "text",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _right(kind: str, target: Node) -> str:
    if kind == "string_type" and isinstance(target, ScalarNode) and target.plain and target.text:
        return quote_it(target)
    if kind in ("int_type", "float_type") and isinstance(target, ScalarNode) and not target.plain:
        return f"write {_EXPECTED[kind]}, without quotes"
    if kind == "list_type" and isinstance(target, ScalarNode) and target.text:
        return f"write a list: [{target.text}]"
    if kind == "list_type" and isinstance(target, MappingNode):
        return "write a list: put `- ` in front of each entry"
    return f"write {_EXPECTED[kind]}"


def _kind(node: Node) -> str:
    """Return the kind of a node: "the number 5", "a list"."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MappingNode):
        return "a mapping"
    if node.value is None:
        return "empty"
    if isinstance(node.value, bool):
        word = "true" if node.value else "false"
        return f"the boolean {word}" + (f" (as YAML reads {node.text})" if node.text != word else "")
    if isinstance(node.value, str):
        return f"the text {quoted(shortened(node.value))}"
    return f"the number {node.text}"


def _shown(node: Node) -> str:
    """Return a scalar as written and a space; "" for lists and mappings."""
    if not isinstance(node, ScalarNode) or not node.text:
        return ""
    text = shortened(node.text)
    return f"{text if node.plain and not isinstance(node.value, str) else quoted(text)} "


def shortened(text: str) -> str:
    """Return text for a message: at most 60 characters, control characters escaped."""
    text = text if len(text) <= 60 else text[:57] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _name_of(path: KeyPath) -> str:
    """Return the key that a sentence is about, of a list item with its index."""
    if not path:
        return ""
    if isinstance(path[-1], int):
        return f"{_name_of(path[:-1]).strip()}[{path[-1]}] "
    return f"{path[-1]} "


def document_at(model: type[Document], path: KeyPath) -> type[Document] | None:
    """Return the model of the mapping at `path`."""
    annotation: Any = model
    for step in path:
        if isinstance(annotation, type) and issubclass(annotation, Document):
            info = annotation.model_fields.get(str(step))
            if info is None:
                return None
            annotation = info.annotation
        else:
            annotation = get_args(annotation)[-1]
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation if isinstance(annotation, type) and issubclass(annotation, Document) else None


_NAMED = {
    "metrics": "metric",
    "labels": "label",
    "variants": "variant",
    "attach": "attach",
    "programs": "",
}


def phrase(node: Node, path: KeyPath, words: KeyPath = ()) -> str:
    """Return `path` in words without its last key: "tcp_rst: metric ebpf_x: label port: ", or ""."""
    parts = [str(word) for word in words]
    for length, step in enumerate(path, 1):
        if isinstance(step, int):
            container = path[length - 2] if length > 1 else ""
            if container in _NAMED:
                kind, name = _NAMED[str(container)], _item_name(at(node, path[:length]), str(container), step)
                parts.append(f"{kind} {name}".strip())
        elif length < len(path) and not (step in _NAMED and isinstance(path[length], int)):
            parts.append(step)
    return "".join(f"{part}: " for part in parts)


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """Reports findings in the tree of one program, each with the program's name and its path in words."""

    program: str
    node: Node
    findings: Findings

    def error(self, path: KeyPath, text: str, at_key: bool = False) -> None:
        """Report a mistake at the value of `path`, with `at_key` at its last key."""
        mark = key_at(self.node, path) if at_key else at(self.node, path).mark
        self.findings.error(mark, f"{phrase(self.node, path, (self.program,))}{text}")

    def warn(self, path: KeyPath, text: str) -> None:
        self.findings.warn(at(self.node, path).mark, f"{phrase(self.node, path, (self.program,))}{text}")


def _item_name(item: Node, container: str, index: int) -> str:
    """Return how messages call a list item: its name, of an attach point kind and target, else its number."""
    if isinstance(item, MappingNode):
        for key in ("name", "use", "field"):
            named = item.get(key)
            if isinstance(named, ScalarNode) and named.text:
                return shortened(named.text)
        if container == "attach":
            for kind, target in item.items:
                if isinstance(target, ScalarNode) and target.text and kind.text not in ("function", "optional"):
                    return f"{kind.text} {shortened(target.text)}"
    return f"number {index + 1}"
