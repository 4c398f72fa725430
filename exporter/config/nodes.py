"""YAML text (YAML 1.1, https://yaml.org/spec/1.1/) -> nodes with line and column.

libyaml (PyYAML's CSafeLoader) parses the text into events, and this module builds the tree: PyYAML's composer follows
aliases, overwrites duplicate keys and turns `no` into a boolean without a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from exporter.config.findings import Mark

MAX_DEPTH = 32  # a program's deepest key is 9 levels down; a file of 100,000 brackets must not end in a RecursionError

_NULL = {"", "~", "null", "Null", "NULL"}
# The booleans of YAML 1.1 as PyYAML reads them.
_TRUE = {f(word) for word in ("true", "yes", "on") for f in (str.lower, str.title, str.upper)}
_FALSE = {f(word) for word in ("false", "no", "off") for f in (str.lower, str.title, str.upper)}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OCTAL = re.compile(r"[-+]?0o?[0-9_]+")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_GROUPED = re.compile(r"[-+]?[0-9]+(_[0-9]+)+")
_LONGEST_NUMBER = 40  # characters; int() of a very long text raises


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """`value` is None, bool, int, float or str; `plain` is False for a quoted text or a block; `style` as in YAML."""

    mark: Mark
    text: str
    plain: bool
    style: str
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class ListNode:
    mark: Mark
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MappingNode:
    mark: Mark
    items: tuple[tuple[ScalarNode, Node], ...]

    def get(self, key: object) -> Node | None:
        return next((node for name, node in self.items if _same(name.value, key)), None)

    def key(self, key: object) -> ScalarNode | None:
        return next((name for name, _ in self.items if _same(name.value, key)), None)


Node = ScalarNode | ListNode | MappingNode
KeyPath = Sequence[str | int]


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b  # 1 and True are different keys


def plain(node: Node) -> Any:
    """Return the node as dict, list and scalars."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {key.value: plain(value) for key, value in node.items}


def at(node: Node, path: KeyPath) -> Node:
    """Return the node at `path`, or the last node of the path that exists."""
    for step in path:
        below: Node | None = None
        if isinstance(node, MappingNode):
            below = node.get(step)
        elif isinstance(node, ListNode) and isinstance(step, int) and 0 <= step < len(node.items):
            below = node.items[step]
        if below is None:
            break
        node = below
    return node


def key_at(node: Node, path: KeyPath) -> Mark:
    """Return the position of the last key of `path`, of a list item that of its value."""
    parent = at(node, path[:-1])
    key = parent.key(path[-1]) if isinstance(parent, MappingNode) else None
    return key.mark if key is not None else at(node, path).mark


def without(node: Node, path: KeyPath) -> Node:
    """Return the tree without the node at `path`; later list items move up."""
    step, rest = path[0], path[1:]
    if isinstance(node, MappingNode):
        rest_items = []
        for key, value in node.items:
            if not _same(key.value, step):
                rest_items.append((key, value))
            elif rest:
                rest_items.append((key, without(value, rest)))
        return MappingNode(node.mark, tuple(rest_items))
    if isinstance(node, ListNode) and isinstance(step, int):
        items = list(node.items)
        items[step : step + 1] = [without(items[step], rest)] if rest else []
        return ListNode(node.mark, tuple(items))
    return node


@dataclass(frozen=True, slots=True)
class Surprise:
    """Valid YAML that a configuration must not have, or invalid YAML, at `path`."""

    mark: Mark
    path: tuple[str | int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Composed:
    """The tree of one document, None if it is empty or invalid YAML, and its surprises."""

    root: Node | None
    surprises: list[Surprise]


def compose(text: str, file: str, order: int = 0) -> Composed:
    """Parse the one document in `text`; `file` and `order` are for the marks."""
    try:
        events = list(yaml.parse(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        mark, sentence = _syntax(error, text, file, order)
        return Composed(None, [Surprise(mark, (), sentence)])
    composer = _Composer(iter(events), file, order)
    return Composed(composer.document(), composer.surprises)


def _syntax(error: yaml.YAMLError, text: str, file: str, order: int) -> tuple[Mark, str]:
    """Return position and sentence of an error of libyaml."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # yaml.reader.ReaderError has no mark
        bad = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
        if bad is None:
            return Mark(file, 1, 1, order), f"this is no YAML: {error}; see docs/configuration.md for an example"
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        position = Mark(file, line, column, order)
        return (
            position,
            f"character U+{ord(bad.group()):04X} cannot be in YAML text; remove it or write it as an escape",
        )
    position = Mark(file, mark.line + 1, mark.column + 1, order)
    problem = getattr(error, "problem", None) or str(error)
    lines = text.splitlines()
    line_text = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line_text[: mark.column + 1] and not line_text[: mark.column].strip():
        return position, "a tab stands in the indentation; indent with spaces"
    for part, sentence in _SYNTAX.items():
        if part in problem:
            return position, sentence
    context = getattr(error, "context", None)
    where = f" ({context})" if context else ""
    return position, f"this is no YAML: {problem}{where}; check indentation, quotes and brackets above"


_SYNTAX = {
    "mapping values are not allowed": (
        "a second `key:` stands where a value should be; put it on its own line, or quote text that has a colon"
    ),
    "could not find expected ':'": "a key without `:` stands here or just above; write `key: value`",
    "found undefined tag handle": "tags (!) are not used here; quote text that starts with `!`",
    "cannot start any token": "this character cannot start a value; quote the text",
    "did not find expected alphabetic": "anchors (&) and aliases (*) are not used here; quote text that has them first",
}


class _Composer:
    """Builds the tree of one file and collects its surprises."""

    def __init__(self, events: Iterator[yaml.Event], file: str, order: int) -> None:
        self.events, self.file, self.order = events, file, order
        self.path: list[str | int] = []
        self.surprises: list[Surprise] = []

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self.error(event, "a second document starts here; one file holds one document, remove `---`")
                    return root
                root = self.node(next(self.events), 0)
        return root

    def mark(self, event: yaml.Event) -> Mark:
        start = event.start_mark
        assert start is not None  # libyaml always sets it, unlike the stubs say
        return Mark(self.file, start.line + 1, start.column + 1, self.order)

    def error(self, where: yaml.Event | Mark, text: str) -> None:
        mark = where if isinstance(where, Mark) else self.mark(where)
        self.surprises.append(Surprise(mark, tuple(self.path), text))

    def node(self, event: yaml.Event, depth: int) -> Node:
        mark = self.mark(event)
        if isinstance(event, yaml.AliasEvent):
            self.error(event, f"*{event.anchor} is a YAML alias, and aliases are not used here; write the value out")
            return ScalarNode(mark, "", False, "", "")
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)  # the other events that can follow
        if event.anchor is not None:
            self.error(event, f"&{event.anchor} is a YAML anchor, and anchors are not used here; remove it")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.error(event, f"{tag} is a YAML tag, and tags are not used here; quote a value to make it text")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if depth >= MAX_DEPTH:
            self.error(event, f"nested more than {MAX_DEPTH} deep; no key needs that")
            self.skip()
            return ScalarNode(mark, "", False, "", "")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
                self.path.append(len(items))
                items.append(self.node(inner, depth + 1))
                self.path.pop()
            return ListNode(mark, tuple(items))
        return self.mapping(mark, depth)

    def skip(self) -> None:
        """Skip the collection whose start event was the last one."""
        depth = 1
        while depth:
            event = next(self.events)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)

    def mapping(self, mark: Mark, depth: int) -> MappingNode:
        items: list[tuple[ScalarNode, Node]] = []
        seen: dict[tuple[type, object], Mark] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            self.path.append(key.text if isinstance(key, ScalarNode) else "")
            value = self.node(next(self.events), depth + 1)
            if isinstance(key, ScalarNode) and self.usable(key, seen):
                seen[type(key.value), key.value] = key.mark
                items.append((key, value))
            elif not isinstance(key, ScalarNode):
                self.error(key.mark, "a key cannot be a list or a mapping; write `key: value`")
            self.path.pop()
        return MappingNode(mark, tuple(items))

    def usable(self, key: ScalarNode, seen: dict[tuple[type, object], Mark]) -> bool:
        """Return True if a mapping with the keys of `seen` can have this key; report why not."""
        first = seen.get((type(key.value), key.value))
        if key.plain and key.text == "<<":
            self.error(key.mark, "<< is a YAML merge key, and those are not used here; write the keys out")
        elif isinstance(key.value, bool | float | None):
            self.error(key.mark, f"the key {key.text or 'here'} is no text in YAML; {quote_it(key)}")
        elif first is not None:
            self.error(key.mark, f'key "{key.text}" stands here a second time (first on line {first.line}); keep one')
        else:
            return True
        return False

    def scalar(self, event: yaml.ScalarEvent) -> ScalarNode:
        mark = self.mark(event)
        is_plain = event.style is None or event.style == ""
        value = resolve(event.value) if is_plain else event.value
        if is_plain and (surprise := _surprise(event.value)):
            self.error(event, surprise)
        return ScalarNode(mark, event.value, is_plain, event.style or "", value)


def resolve(text: str) -> bool | int | float | str | None:
    """Return the value of a plain scalar by YAML 1.1, but every number with an exponent is a number (1e-6)."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) <= _LONGEST_NUMBER:
        if _INT.fullmatch(text):
            return int(text, 0) if "x" in text else int(text)
        if _FLOAT.fullmatch(text):
            return float(text.replace(".inf", "inf").replace(".nan", "nan")) if text[-1].isalpha() else float(text)
    return text


def _surprise(text: str) -> str | None:
    """Return the sentence for a number that YAML 1.1 and people read differently."""
    if not text[:1].isdigit() and text[:1] not in ("-", "+"):
        return None
    if _OCTAL.fullmatch(text) and text.lstrip("+-") != "0":
        digits = text.lstrip("+-0o")
        right = f'write {digits or 0}, or "{text}" in quotes for text'
        if re.fullmatch("[0-7]+", digits):
            octal = int(digits, 8)
            right = f'write {digits} or {octal}, or "{text}" in quotes for text'
        return f"{text} starts with 0 and would be octal in YAML 1.1; {right}"
    if _BASE_60.fullmatch(text):
        return f'{text} would be a number in base 60 in YAML 1.1; write "{text}" in quotes'
    if _GROUPED.fullmatch(text):
        return f"{text} is a number only in YAML 1.1; write {text.replace('_', '')}"
    return None


def quote_it(node: ScalarNode) -> str:
    """Return the hint for a scalar that YAML does not read as text."""
    return f'write "{node.text}" in quotes'
