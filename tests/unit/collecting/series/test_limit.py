"""Label sets to series: equal ones made one, later ones folded."""

from __future__ import annotations

import gc

import numpy as np

from exporter.collecting.maps import columns
from exporter.collecting.series.interned import StringTable
from exporter.collecting.series.label_sets import LabelSet, LabelSets
from exporter.collecting.series.labels import Rows
from exporter.collecting.series.limit import Arrangement, Budget, Limit, arrange

WORDS = StringTable()


def rows(*sets: LabelSet | None, labels: int = 1) -> Rows:
    missing = np.array([each is None for each in sets], bool)
    texts = [("",) * labels if each is None else each for each in sets]
    codes = np.array([[WORDS.code(text) for text in each] for each in texts], np.int64).reshape(len(sets), labels)
    return Rows(LabelSets(WORDS, list(codes.T), len(sets)), missing)


def arranged(limit: Limit, *sets: LabelSet | None, stays: tuple[bool, ...] = (False,)) -> Arrangement:
    return arrange([rows(*sets, labels=len(stays))], [stays], limit)


def shown(how: Arrangement) -> list[LabelSet]:
    return list(how.sets)


def test_series_are_sorted_by_their_label_values() -> None:
    how = arranged(Limit(10), ("b",), ("a",), ("c",))
    assert shown(how) == [("a",), ("b",), ("c",)]
    assert how.order.tolist() == [1, 0, 2]
    assert how.starts is None


def test_equal_label_sets_are_one_series() -> None:
    how = arranged(Limit(10), ("b",), ("a",), ("b",), ("c",))
    assert shown(how) == [("a",), ("b",), ("c",)]
    assert sorted(how.order[1:3].tolist()) == [0, 2]
    assert (how.order[0], how.order[3]) == (1, 3)
    assert how.starts is not None
    assert how.starts.tolist() == [0, 1, 3]
    assert how.group.tolist() == [1, 0, 1, 2]


def test_dropped_rows_are_in_no_series_and_counted() -> None:
    how = arranged(Limit(10), ("b",), None, ("a",), None)
    assert shown(how) == [("a",), ("b",)]
    assert how.order.tolist() == [2, 0]
    assert how.group.tolist() == [1, -1, 0, -1]
    assert how.dropped == 2


def test_exactly_max_series_are_shown() -> None:
    assert arranged(Limit(3), ("a",), ("b",), ("c",)).folded == 0


def test_later_label_sets_fold_into_other_and_the_first_seen_stay() -> None:
    limit = Limit(2)
    arranged(limit, ("m",), ("n",))
    how = arranged(limit, ("a",), ("m",), ("n",), ("z",))
    assert shown(how) == [("m",), ("n",), ("other",)]
    assert how.folded == 2
    assert how.group.tolist() == [2, 0, 1, 2]


def test_const_and_cpu_labels_keep_their_value_when_folded() -> None:
    how = arranged(Limit(1), ("0", "sent", "a"), ("0", "sent", "b"), ("1", "sent", "c"), stays=(True, True, False))
    assert shown(how) == [("0", "sent", "a"), ("0", "sent", "other"), ("1", "sent", "other")]


def test_a_folded_set_stays_folded_while_it_lives() -> None:
    limit = Limit(1)
    arranged(limit, ("a",), ("b",))
    how = arranged(limit, ("b",), ("c",))  # a is gone, its place goes to the newcomer: "other" must not shrink
    assert shown(how) == [("c",), ("other",)]
    assert how.group.tolist() == [1, 0]
    how = arranged(limit, ("c",))
    how = arranged(limit, ("b",), ("c",))  # b had ended: it is new now, and late
    assert shown(how) == [("c",), ("other",)]


def test_entries_of_one_family_share_its_limit() -> None:
    how = arrange(
        [rows(("4", "a"), ("4", "b"), labels=2), rows(("6", "c"), labels=2)], [(True, False), (True, False)], Limit(1)
    )
    assert shown(how) == [("4", "a"), ("4", "other"), ("6", "other")]


def test_a_real_series_called_other_takes_the_folded_ones_in() -> None:
    how = arranged(Limit(2), ("a",), ("other",), ("x",))
    assert shown(how) == [("a",), ("other",)]
    assert how.group.tolist() == [0, 1, 1]


def test_no_rows_no_series() -> None:
    how = arranged(Limit(1))
    assert (shown(how), how.order.tolist(), how.folded) == ([], [], 0)


def test_metrics_share_one_budget_and_later_label_sets_fold() -> None:
    budget = Budget(3)
    one, other = Limit(10, budget), Limit(10, budget)
    assert arranged(one, ("a",), ("b",)).folded == 0
    how = arranged(other, ("c",), ("d",), ("e",))
    assert shown(how) == [("c",), ("other",)]
    assert how.folded == 2
    assert arranged(one, ("a",), ("b",), ("f",)).folded == 1


def test_places_in_the_budget_are_free_again_when_series_or_their_metric_end() -> None:
    budget = Budget(2)
    one, other = Limit(10, budget), Limit(10, budget)
    arranged(one, ("a",), ("b",))
    arranged(one, ("a",))
    assert arranged(other, ("c",)).folded == 0
    del one
    gc.collect()
    assert arranged(other, ("c",), ("d",)).folded == 0


def test_label_sets_that_ended_are_counted_shown_or_folded() -> None:
    limit = Limit(1)
    arranged(limit, ("a",), ("b",))
    assert limit.ended == 0
    arranged(limit, ("a",))
    arranged(limit, ("c",))
    assert limit.ended == 2


def test_new_series_come_behind_those_that_stay() -> None:
    limit = Limit(10)
    arranged(limit, ("b",), ("d",), ("f",))
    how = arranged(limit, ("f",), ("e",), ("a",), ("b",))
    assert shown(how) == [("b",), ("f",), ("a",), ("e",)]
    assert how.previous.tolist() == [0, 2, -1, -1]
    assert how.group.tolist() == [1, 3, 2, 0]


def test_the_folded_series_is_last_and_keeps_its_name() -> None:
    limit = Limit(2)
    arranged(limit, ("a",), ("b",), ("c",))
    how = arranged(limit, ("b",), ("c",), ("d",))  # a made room for one
    assert shown(how) == [("b",), ("d",), ("other",)]
    assert how.previous.tolist() == [1, -1, 2]


def test_series_that_stay_do_so_without_rows() -> None:
    limit = Limit(2)
    arranged(limit, ("a",), ("b",), ("c",))
    how = arrange([rows(("b",))], [(False,)], limit, stays=np.array([True, False, True]))
    assert shown(how) == [("a",), ("b",), ("other",)]
    assert (how.group.tolist(), how.order.tolist(), how.starts) == ([1], [0], None)
    assert how.present is not None
    assert how.present.tolist() == [1]
    assert columns.spread(columns.grouped(np.array([7]), how.order, how.starts, "sum"), how.present, 3).tolist() == [
        0,
        7,
        0,
    ]
    assert limit.ended == 1  # c, which was folded
    assert shown(arrange([rows(("b",))], [(False,)], limit)) == [("b",)]
