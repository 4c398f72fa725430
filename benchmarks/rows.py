"""The rows that benchmarks measure: every script here prints them and, with `--json FILE`, writes them for
report.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    ours, peer, floor   measured values in `unit`; None where nothing was measured
    ratio               the value that `target` limits, mostly ours / peer or ours / floor, as `what` says
    target              the most that `ratio` may be; None: reported, not promised
    """

    what: str
    ours: float | None
    unit: str
    peer: float | None = None
    floor: float | None = None
    ratio: float | None = None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Return True if the target is met; None where nothing is promised or nothing could be compared."""
        return None if self.ratio is None or self.target is None else self.ratio <= self.target


def write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read(path: Path) -> list[Row]:
    """Return the rows of a script, which may leave out keys and have keys of its own."""
    known = Row.__slots__
    return [Row(**{key: row.get(key) for key in known}) for row in json.loads(path.read_text())]


def table(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells as text: ratio, target, what, ours, peer, floor, unit."""
    return [
        [
            "-" if row.ratio is None else f"{row.ratio:.3g}",
            _promise(row),
            row.what,
            *("-" if value is None else number(value) for value in (row.ours, row.peer, row.floor)),
            row.unit,
        ]
        for row in rows
    ]


HEAD = ["ratio", "target", "what", "ours", "peer", "floor", "unit"]


def show(rows: Sequence[Row]) -> None:
    cells = [HEAD, *table(rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def leave(rows: Sequence[Row], path: Path | None) -> None:
    """Print the rows, and write them to the file of --json if one is given."""
    show(rows)
    if path is not None:
        write(path, rows)


def number(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _promise(row: Row) -> str:
    if row.target is None:
        return "-"
    return f"<= {row.target:.3g}" + {True: ", met", False: ", MISSED", None: ""}[row.met]
