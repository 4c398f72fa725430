"""Samples whose numbers change and whose labels mostly do not -> their text, by a template that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from exporter.collecting.text.decimals import float_text
from exporter.collecting.text.exposition import Text, family, template

Row = tuple[Sequence[str], float]  # label values in the order of the labels, and the number


class Samples(NamedTuple):
    """Of one family, in any order."""

    name: str
    type: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...]
    rows: Sequence[Row]


class KeptTemplate:
    """The text of the same families over and over: as `exposition.write` gives it, in a fraction of the time where
    nothing but numbers is new. Families without a sample are left out."""

    def __init__(self) -> None:
        self._labels: list[list[Sequence[str]]] | None = None  # of each family's rows when the templates were made
        self._places: list[int] = []  # where in the rows the number of each sample of the text is
        self._plain = self._openmetrics = b""

    def text(self, families: Sequence[Samples]) -> Text:
        """`families`: each time the same, with any rows."""
        labels = [[of for of, _ in each.rows] for each in families]
        if labels != self._labels:
            self._make(families)
            self._labels = labels
        numbers = [_spelled(number) for each in families for _, number in each.rows]
        values = tuple(map(numbers.__getitem__, self._places))
        return Text([self._plain % values], [self._openmetrics % values])

    def _make(self, families: Sequence[Samples]) -> None:
        places = iter(range(sum(len(each.rows) for each in families)))
        made = [
            family(each.name, each.type, each.help, each.labels, [(of, next(places)) for of, _ in each.rows])
            for each in families
            if each.rows
        ]
        self._places = [place for each in made for place in each.values.tolist()]
        self._plain, self._openmetrics = template(made)


def _spelled(number: float) -> bytes:
    return b"%d" % number if isinstance(number, int) else float_text(number)
