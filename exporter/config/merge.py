"""The main file and the files it names -> the programs of one configuration: include, use, source."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from exporter.config import attach_points, bundled, document, map_options, metrics, naming, override, sources
from exporter.config.config_files import FileError, FileReader
from exporter.config.findings import Findings, Mark, quoted
from exporter.config.nodes import ListNode, MappingNode, Node, ScalarNode, at, compose, key_at, without
from exporter.config.validate import Valid, phrase, validate
from exporter.kernel.near import did_you_mean
from exporter.spec import MapOptions, ProgramSpec

_NUL = "a NUL, and the compiler would read no further; take it out"


@dataclass(frozen=True, slots=True)
class MarkedProgram:
    """A program and the positions for findings about it and its metrics: in the user's file, also for a bundled one."""

    program: ProgramSpec
    mark: Mark
    metrics: dict[str, Mark]


@dataclass(slots=True)
class Merge:
    """Reads the files of one configuration.

    bundled   directory that `use:` searches after programs/ beside the main file (`_local`)
    report    collects the findings
    programs  the programs that were read
    """

    reader: FileReader
    bundled: Path
    report: Findings
    programs: list[MarkedProgram] = field(default_factory=list)
    _order: int = 0
    _local: Path = Path("programs")

    def main(self, path: Path) -> document.MainFile:
        """Read the main file and the files it names, and add their programs to `programs`."""
        self._local = path.parent / "programs"
        root = self._read(path, Mark(str(path)))
        if root is None:
            return document.MainFile()
        valid = validate(document.MainFile, without(root, ["programs"]), self.report)
        main = valid.document if valid else document.MainFile()
        self._entries(root, path)
        for included, mark in self._included(path, valid.node if valid else root, main.include):
            self._include(included, mark)
        return main

    def bundled_entry(self, path: Path) -> None:
        """Read the YAML file of one bundled program, as `use:` does."""
        self._local = path.parent
        mark = Mark(str(path))
        entry = self._bundled(path, mark)
        if entry is not None:
            self._add(entry, path, {}, mark)

    # Files

    def _read(self, path: Path, named_at: Mark, prefix: str = "") -> MappingNode | None:
        """Return the mapping in a file, None if there is none. A file that cannot be read is reported at `named_at`."""
        order, self._order = self._order, self._order + 1
        try:
            text = self.reader.text(path)
        except FileError as error:
            if error.line:
                self.report.error(Mark(str(path), error.line, error.column, order), str(error))
            else:
                self.report.error(named_at, f"{prefix}{error}")
            return None
        composed = compose(text, str(path), order)
        root = composed.root
        entry = (_provisional_name(root, 0),) if isinstance(root, MappingNode) and root.get("name") is not None else ()
        for surprise in composed.surprises:
            words = phrase(root, surprise.path, entry) if root is not None else ""
            self.report.error(surprise.mark, f"{words}{surprise.text}")
        if root is None or (isinstance(root, ScalarNode) and root.value is None):
            if not composed.surprises:
                self.report.error(
                    Mark(str(path), order=order), "the file is empty; write programs: and a list below it"
                )
            return None
        if not isinstance(root, MappingNode):
            what = "a list" if isinstance(root, ListNode) else "a single value"
            right = "write `programs:` above it" if isinstance(root, ListNode) else "write keys, like programs:"
            self.report.error(root.mark, f"the file is {what}; {right}")
            return None
        return root

    def _included(self, main: Path, root: Node, patterns: list[str]) -> Iterator[tuple[Path, Mark]]:
        """Yield the files that the patterns of `include:` match, each once, in the order of the patterns, sorted by
        name."""
        itself = os.path.realpath(main)
        seen = {itself}
        for index, pattern in enumerate(patterns):
            mark = at(root, ["include", index]).mark
            if not pattern:
                self.report.error(mark, 'include "" names no file; write a path or a glob like conf.d/*.yaml')
                continue
            where = str(main.parent / pattern)
            found = self.reader.sources.globs[where] = sources.matches(where)
            if not found and not glob.has_magic(pattern):
                found = [where]
            for name in found:
                real = os.path.realpath(name)  # reading reports a loop of symlinks
                if real == itself:
                    self.report.error(mark, f"include {quoted(pattern)} finds this file itself; name others")
                elif real not in seen:
                    seen.add(real)
                    yield Path(name), mark

    def _include(self, path: Path, mark: Mark) -> None:
        root = self._read(path, mark, f"include {quoted(str(path))}: ")
        if root is None:
            return
        for name, _ in root.items:
            if name.text in ("include", "limits"):
                sentence = f'"{name.text}" stands only in the main file; an included file holds only programs:'
                self.report.error(name.mark, sentence)
                root = MappingNode(root.mark, tuple(item for item in root.items if item[0] is not name))
        validate(document.IncludedFile, without(root, ["programs"]), self.report)
        self._entries(root, path)

    # Items of `programs:`

    def _entries(self, root: MappingNode, path: Path) -> None:
        written = root.get("programs")
        if written is None:
            return
        if not isinstance(written, ListNode):
            empty = isinstance(written, ScalarNode) and written.value is None
            wrong = "is empty" if empty else "is no list"
            self.report.error(written.mark, f"programs {wrong}; put `- ` in front of each program")
            return
        for index, node in enumerate(written.items):
            if not isinstance(node, MappingNode):
                self.report.error(node.mark, f"program number {index + 1} is no mapping; write name: or use: in it")
            elif node.get("use") is not None:
                self._use(node, index)
            else:
                entry = validate(document.ProgramDocument, node, self.report, (_provisional_name(node, index),))
                if entry is not None:
                    marks: dict[str, Mark] = {}
                    for number, metric in enumerate(entry.document.metrics):
                        marks.setdefault(metric.name, at(entry.node, ["metrics", number, "name"]).mark)
                    self._add(entry, path, marks, node.mark)

    def _use(self, node: MappingNode, index: int) -> None:
        """Add the program of an entry with `use:`, with its overrides."""
        name = _provisional_name(node, index)
        valid = validate(document.UseDocument, override.changeable(node, name, self.report), self.report, (name,))
        if valid is None:
            return
        use = valid.document
        directories = [self._local, self.bundled]
        path, absent = bundled.find(use.use, directories)
        self.reader.sources.absent.extend(absent)
        mark = at(node, ["use"]).mark
        if path is None:
            known = sorted({known for directory in directories for known in bundled.names(directory)})
            hint = did_you_mean(use.use, known, otherwise="there are")
            where = f"{self._local} or {self.bundled}"
            self.report.error(mark, f"{name}: there is no program {quoted(use.use)} in {where}; {hint}")
            return
        entry = self._bundled(path, mark)
        if entry is not None:
            merged = override.apply(entry, valid, name, self.report)
            marks = {changed.name: at(valid.node, ["metrics", i, "name"]).mark for i, changed in enumerate(use.metrics)}
            self._add(merged, path, marks, mark)

    def _bundled(self, path: Path, mark: Mark) -> Valid[document.ProgramDocument] | None:
        root = self._read(path, mark, f"use {quoted(path.stem)}: {path} ")
        if root is None:
            return None
        entry = validate(document.ProgramDocument, root, self.report, (_provisional_name(root, 0),))
        if entry is not None and entry.document.name != path.stem:
            self.report.error(
                at(entry.node, ["name"]).mark,
                f"{entry.document.name}: the file is {path.name}; write name: {path.stem}, or rename the file",
            )
        return entry

    def _add(self, entry: Valid[document.ProgramDocument], path: Path, marks: dict[str, Mark], mark: Mark) -> None:
        """Run the checks of more than one key and add the program."""
        program, node = entry.document, entry.node
        variants = attach_points.variants(entry, program.defines, self.report)
        resolved = metrics.metrics(entry, self.report)
        naming.check(program, node, self.report)
        map_options.check(entry, self.report)
        text = self._c_text(entry, path)
        if text is None:
            return
        source, line, indent, c_text = text
        self.programs.append(
            MarkedProgram(
                ProgramSpec(
                    name=program.name,
                    enabled=program.enabled,
                    optional=program.optional,
                    budget=program.budget,
                    lifetime=program.lifetime,
                    defines=program.defines,
                    requires=attach_points.requires(program.requires),
                    variants=variants,
                    maps={name: MapOptions(**options.model_dump()) for name, options in program.maps.items()},
                    metrics=resolved,
                    source=source,
                    line=line,
                    indent=indent,
                    text=c_text,
                ),
                mark,
                marks,
            )
        )

    def _c_text(self, entry: Valid[document.ProgramDocument], path: Path) -> tuple[Path, int, int, str] | None:
        """Return file, first line, indentation and text of a program's C text; None if it has none."""
        program, node = entry.document, entry.node
        if (program.source is None) == (program.code is None):
            if program.source is None and not any(map(entry.wrote, ("source", "code", "object"))):
                wrong = "neither source nor code; write source: FILE.c, or code: | and the C text"
                self.report.error(node.mark, f"{program.name}: {wrong}")
            elif program.source is not None:
                mark = max(key_at(node, ["source"]), key_at(node, ["code"]), key=lambda m: (m.line, m.column))
                self.report.error(mark, f"{program.name}: source and code exclude each other; keep one")
            return None
        if program.code is not None:
            return self._code(program, at(node, ["code"]), path)
        mark = at(node, ["source"]).mark
        source = path.parent / str(program.source)
        try:
            text = self.reader.text(source)
        except FileError as error:
            where = f" line {error.line}" if error.line else ""
            self.report.error(mark, f"{program.name}: source {source}{where} {error}")
            return None
        if not text.strip():
            self.report.error(mark, f"{program.name}: source {source} is empty; write the C text into it")
            return None
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            self.report.error(mark, f"{program.name}: source {source} line {line} has {_NUL}")
            return None
        return source, 1, 0, text

    def _code(self, program: document.ProgramDocument, node: Node, path: Path) -> tuple[Path, int, int, str] | None:
        text = program.code or ""
        folded = isinstance(node, ScalarNode) and node.style != "|" and (node.style == ">" or "\n" in text)
        if folded:
            self.report.error(node.mark, f"{program.name}: code loses its lines this way; write the C text as code: |")
            return None
        if not text.strip():
            self.report.error(node.mark, f"{program.name}: code is empty; write the C text as code: |")
            return None
        if "\0" in text:
            self.report.error(node.mark, f"{program.name}: code has {_NUL}")
            return None
        # A block begins on the line after its `|`, with its empty lines.
        block = isinstance(node, ScalarNode) and node.style == "|"
        if block:
            indent = _indent(self.reader.text(path), text, node.mark.line + 1)
        else:  # quoted or plain, on one line
            indent = node.mark.column - (isinstance(node, ScalarNode) and not node.style)
        return path, node.mark.line + block, indent, text


def _indent(file: str, text: str, line: int) -> int:
    """Return the indentation of the text of a block that begins at that line of the file."""
    for inside, outside in zip(text.split("\n"), file.split("\n")[line - 1 :], strict=False):
        if inside.strip() and outside.endswith(inside):
            return len(outside) - len(inside)
    return 0


def _provisional_name(node: MappingNode, index: int) -> str:
    """Return the name of a program whose keys are not checked yet."""
    for key in ("name", "use"):
        named = node.get(key)
        if isinstance(named, ScalarNode) and isinstance(named.value, str) and named.value:
            return named.value
    return f"program number {index + 1}"
