"""A program's document and the raw bytes of its maps -> JSON, and back to a collector that needs no kernel.

A recording holds all input of collecting, so that a collection can be run again anywhere: `run --record DIR` records a
live host, tests/golden replays.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.binding.bind import bind_all
from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables
from exporter.collecting.maps.table import Entries, Readable
from exporter.collecting.series.labels import DEFAULT_LENGTH
from exporter.decoders import Names
from exporter.kernel import cpus, map_types
from exporter.kernel.btf import VMLINUX
from exporter.kernel.enums import KernelEnums
from exporter.program import Map, Program, from_json, to_json
from exporter.spec import ProgramSpec

FORMAT = 2


def record(
    program: Program,
    spec: ProgramSpec,
    tables: Mapping[str, Readable],
    *,
    possible: Sequence[int],
    online: Sequence[int],
    enums: KernelEnums,
) -> dict[str, Any]:
    """Return the recording as JSON values. Each map is a list of entries sorted by key: [key, value of each CPU], in
    hex.

    `enums`: of the kernel that filled the maps; those that labels use are kept. The C text and where it lay are not.
    """
    used = {
        name
        for binding in bind_all(spec.metrics, program.maps)
        for label in binding.labels
        if label.chain is not None
        for name in label.chain.kernel_enums
    }
    maps = {}
    for name, table in tables.items():
        entries = table.read()
        maps[name] = sorted(
            [key.tobytes().hex(), *(value.tobytes().hex() for value in values)]
            for key, values in zip(entries.keys, entries.values, strict=True)
        )
    return {
        "format": FORMAT,
        "machine": os.uname().machine,
        "possible_cpus": list(possible),
        "online_cpus": list(online),
        "document": to_json(program),
        "spec": spec.model_copy(update={"text": "", "source": Path(spec.source.name)}).model_dump(mode="json"),
        "kernel_enums": {
            name: {str(n): text for n, text in (enums.values(name) or {}).items()} for name in sorted(used)
        },
        "maps": maps,
    }


def write(path: Path, program: Program, spec: ProgramSpec, fds: Mapping[str, int]) -> None:
    """Record a live program to a file. OSError from the file or the maps, ReadError from a map without an end."""
    possible = cpus.possible_numbers()
    tables = open_tables(program, fds, len(possible))
    enums = KernelEnums(VMLINUX)
    document = record(program, spec, tables, possible=possible, online=cpus.online(), enums=enums)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


class Recorded:
    """A map of a recording, read like an open one."""

    def __init__(self, map: Map, rows: Sequence[Sequence[str]], possible_cpus: int) -> None:  # noqa: A002
        """Decode the entries. ValueError if one does not have the map's sizes."""
        percpu = map.type in map_types.PERCPU
        each, size = (possible_cpus, (map.value_size + 7) // 8 * 8) if percpu else (1, map.value_size)
        if any(len(row) != 1 + each or len("".join(row)) != 2 * (map.key_size + each * size) for row in rows):
            raise ValueError(f"map {map.name}: the entries recorded do not have its sizes")
        keys = b"".join(bytes.fromhex(row[0]) for row in rows)
        values = b"".join(bytes.fromhex("".join(row[1:])) for row in rows)
        self._entries = Entries(
            np.frombuffer(keys, np.uint8).reshape(len(rows), map.key_size),
            np.frombuffer(values, np.uint8).reshape(len(rows), each, size),
        )

    def read(self) -> Entries:
        return self._entries

    def frames(self, id: int) -> bytes | None:  # noqa: A002
        """Return a stack, where the map has stacks (see stacks.Stacks)."""
        if self._entries.keys.shape[1] != 4:
            return None
        key = np.frombuffer(id.to_bytes(4, sys.byteorder), np.uint8)
        rows = np.flatnonzero((self._entries.keys == key).all(axis=1))
        return self._entries.values[rows[0]].tobytes() if len(rows) else None


def replay(
    document: Mapping[str, Any],
    names: Names,
    *,
    label_length: int = DEFAULT_LENGTH,
    clock: Callable[[], float] = time.monotonic,
) -> ProgramCollector:
    """Return a collector on the recorded bytes, with the enums and system calls of the kernel that they come from; all
    other names are those of `names`. ValueError for a recording of another format, BindingError as usual."""
    if document.get("format") != FORMAT:
        raise ValueError(f"recording of format {document.get('format')!r}, expected {FORMAT}")
    program = from_json(document["document"])
    possible = document["possible_cpus"]
    enums = {name: {int(n): text for n, text in values.items()} for name, values in document["kernel_enums"].items()}
    tables = {
        m.name: Recorded(m, document["maps"][m.name], len(possible)) for m in program.maps if m.name in document["maps"]
    }
    return ProgramCollector(
        program,
        ProgramSpec.model_validate(document["spec"]),
        tables,
        replace(names, enums=KernelEnums(None, enums), machine=document.get("machine", names.machine)),
        possible=possible,
        online=lambda: document["online_cpus"],
        label_length=label_length,
        clock=clock,
    )
