"""The memory of totals: what a server wrote, the next one reads; killed anywhere, it is one commit or the other."""

from __future__ import annotations

import inspect
import os
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from exporter.binding.totals_layout import PAGE, FamilyLayout, TotalsLayout
from exporter.collecting.series import totals_store as module
from exporter.collecting.series.interned import StringTable
from exporter.collecting.series.label_sets import LabelSet, LabelSets, from_texts
from exporter.collecting.series.totals_store import Store
from exporter.kernel import memfd

LABELS = ("name", "unit")
PLAN = TotalsLayout(
    (
        FamilyLayout("a_total", LABELS, 1, 6, 40),
        FamilyLayout("b_seconds", ("x",), 3, 4, 30),
        FamilyLayout("c", (), 1, 1, 1),
    ),
    ("first", "second"),
)
State = dict[str, tuple[list[tuple[str, ...]], int, list[list[int]], list[list[int]]]]


@pytest.fixture
def memory() -> Iterator[int]:
    fd = memfd.of_size("totals", PLAN.size)
    yield fd
    os.close(fd)


def state(store: Store) -> State:
    return {
        name: (kept.sets, kept.folded, kept.carried.tolist(), kept.shown.tolist())
        for name, kept in store.committed.items()
    }


def found(fd: int) -> tuple[State, dict[str, int]]:
    store = Store(fd, PLAN)
    return state(store), dict(store.uncleared)


def numbers(*rows: int, width: int = 1) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array([[row + i for i in range(width)] for row in rows], np.uint64).reshape(-1, width)


def coded(texts: list[LabelSet]) -> LabelSets:
    return from_texts(StringTable(), texts, len(texts[0]) if texts else 0)


def places(*kept: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    return np.array(kept, np.intp)


def first_commit(store: Store) -> None:
    a, b, c = (store.families[name] for name in ("a_total", "b_seconds", "c"))
    a.arrange(places(-1, -1), coded([("tea", "1\t"), ("\u00fe \u00ff", "")]))
    b.arrange(places(-1), coded([("\n",)]))
    c.arrange(places(-1), coded([()]))
    bank = store.next_bank
    a.write(bank, 0, None, [numbers(10, 2**64 - 1)])
    b.write(bank, 1, numbers(5, width=3), [numbers(7, width=2), numbers(9)])
    c.write(bank, 0, None, [numbers(1)])
    store.commit({"second": 1})


def second_commit(store: Store) -> None:
    """A series went, others came, numbers rose."""
    a, b, c = (store.families[name] for name in ("a_total", "b_seconds", "c"))
    a.arrange(places(1, -1, -1), coded([("coffee", "2"), ("milk", "3")]))
    bank = store.next_bank
    a.write(bank, 0, numbers(1, 2, 3), [numbers(11, 12, 13)])
    b.write(bank, 1, numbers(6, width=3), [numbers(8, width=2), numbers(10)])
    c.write(bank, 0, None, [numbers(2)])
    store.commit({"first": 0})


FIRST: tuple[State, dict[str, int]] = (
    {
        "a_total": ([("tea", "1\t"), ("\u00fe \u00ff", "")], 0, [[0], [0]], [[10], [2**64 - 1]]),
        "b_seconds": ([("\n",)], 1, [[5, 6, 7]], [[7, 8, 9]]),
        "c": ([()], 0, [[0]], [[1]]),
    },
    {"second": 1},
)
SECOND: tuple[State, dict[str, int]] = (
    {
        "a_total": (
            [("\u00fe \u00ff", ""), ("coffee", "2"), ("milk", "3")],
            0,
            [[1], [2], [3]],
            [[11], [12], [13]],
        ),
        "b_seconds": ([("\n",)], 1, [[6, 7, 8]], [[8, 9, 10]]),
        "c": ([()], 0, [[0]], [[2]]),
    },
    {"first": 0},
)


def test_a_new_memory_holds_nothing(memory: int) -> None:
    store = Store(memory, PLAN)
    assert (store.committed, dict(store.uncleared)) == ({}, {})


def test_what_was_committed_is_read_by_the_next_server(memory: int) -> None:
    store = Store(memory, PLAN)
    first_commit(store)
    assert found(memory) == FIRST
    second_commit(store)
    assert found(memory) == SECOND
    store.cleared()
    assert found(memory) == (SECOND[0], {})


def test_the_next_server_goes_on_from_there(memory: int) -> None:
    first_commit(Store(memory, PLAN))
    second_commit(Store(memory, PLAN))
    assert found(memory) == SECOND


def test_what_was_not_committed_is_as_if_it_had_not_been(memory: int) -> None:
    store = Store(memory, PLAN)
    first_commit(store)
    store.families["a_total"].arrange(places(-1), coded([("new", "x")]))
    store.families["a_total"].write(store.next_bank, 0, numbers(99), [numbers(99)])
    assert found(memory) == FIRST


def contents(fd: int) -> bytes:
    return os.pread(fd, PLAN.size, 0)


def copy_of(raw: bytes) -> int:
    fd = memfd.of_size("totals", PLAN.size)
    os.pwrite(fd, raw, 0)
    return fd


def at_each_line(fd: int, work: Callable[[], None]) -> list[bytes]:
    """The memory as it was before each line of the store's code that `work` runs: where a kill could come."""
    seen: list[bytes] = []
    code = inspect.getsourcefile(module)

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != code:
            return None
        if event == "line":
            seen.append(contents(fd))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen


@pytest.mark.parametrize("commits", [1, 2, 7])
def test_killed_at_any_line_of_a_commit_it_is_as_before_or_as_after(memory: int, commits: int) -> None:
    store = Store(memory, PLAN)
    for _ in range(commits):
        first_commit(store)
        store.families["a_total"].arrange(places(), coded([]))
        store.families["b_seconds"].arrange(places(), coded([]))
        store.families["c"].arrange(places(), coded([]))
    for name in ("a_total", "b_seconds", "c"):
        store.families[name].arrange(places(), coded([]))
    first_commit(store)
    snapshots = at_each_line(memory, lambda: second_commit(store))
    outcomes = []
    for raw in snapshots:
        fd = copy_of(raw)
        outcomes.append(found(fd))
        os.close(fd)
    assert len(snapshots) > 30
    assert all(outcome in (FIRST, SECOND) for outcome in outcomes)
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == SECOND)
    assert found(memory) == SECOND


def test_a_write_that_was_cut_anywhere_changes_nothing_before_the_commit(memory: int) -> None:
    """Of a long copy any part may be done: whatever the bank that is written to holds, the other one counts."""
    store = Store(memory, PLAN)
    first_commit(store)
    raw = bytearray(contents(memory))
    bank = PLAN.start + store.next_bank * PLAN.bank
    choose = random.Random(1)
    for _ in range(50):
        raw[bank : bank + PLAN.bank] = choose.randbytes(PLAN.bank)
        fd = copy_of(bytes(raw))
        assert found(fd) == FIRST
        os.close(fd)


def test_the_log_of_texts_is_used_again_however_often_series_come_and_go(memory: int) -> None:
    store = Store(memory, PLAN)
    first_commit(store)
    family = store.families["a_total"]
    family.arrange(places(0, 1), coded([]))
    for number in range(2000):  # some 20 bytes each: many times the log's size
        family.arrange(places(0, 1, -1), coded([(f"name {number}", "x" * 10)]))
        family.write(store.next_bank, 0, None, [numbers(1, 2, number)])
        store.families["b_seconds"].write(store.next_bank, 1, numbers(5, width=3), [numbers(7, width=3)])
        store.families["c"].write(store.next_bank, 0, None, [numbers(1)])
        store.commit({})
        if number % 97 == 0:
            kept, _ = found(memory)
            sets = [("tea", "1\t"), ("\u00fe \u00ff", ""), (f"name {number}", "x" * 10)]
            assert kept["a_total"] == (sets, 0, [[0], [0], [0]], [[1], [2], [number]])
            assert kept["b_seconds"] == FIRST[0]["b_seconds"]
    assert PLAN.log < 2000 * 20


def test_more_series_than_there_is_room_for_are_refused(memory: int) -> None:
    family = Store(memory, PLAN).families["b_seconds"]
    with pytest.raises(ValueError, match="5 series where 4 have room"):
        family.arrange(places(*[-1] * 5), coded([(str(i),) for i in range(5)]))


def test_a_label_set_longer_than_planned_is_refused(memory: int) -> None:
    family = Store(memory, PLAN).families["b_seconds"]
    with pytest.raises(ValueError, match="a label set of 31 bytes where 30 were planned"):
        family.arrange(places(-1, -1), coded([("x" * 29,), ("x" * 30,)]))


def test_totals_of_other_metrics_are_not_taken_for_these(memory: int) -> None:
    first_commit(Store(memory, PLAN))
    other = TotalsLayout((FamilyLayout("z_total", ("x",), 1, 3, 10),))
    with capture_logs() as logs:
        store = Store(memory, other)
    assert store.committed == {}
    assert logs[0]["error"] == "they are of other metrics"
    assert logs[0]["event"] == "totals of the previous server are not used: counters start again"


def test_a_memory_that_is_too_small_is_refused() -> None:
    fd = memfd.of_size("totals", PAGE)
    with pytest.raises(ValueError, match="mmap length"):
        Store(fd, PLAN)
    os.close(fd)


@pytest.mark.parametrize("seed", range(100))
def test_nonsense_makes_it_start_clean_and_work(memory: int, seed: int) -> None:
    """What a server that was taken over may leave: random words, anywhere, also where the reader looks first."""
    store = Store(memory, PLAN)
    first_commit(store)
    second_commit(store)
    choose = random.Random(seed)
    for _ in range(choose.randint(1, 40)):
        at = choose.choice([0, 8, choose.randrange(0, PLAN.size, 8), choose.randrange(PLAN.start, PLAN.size, 8)])
        word = choose.choice([choose.randbytes(8), choose.randrange(64).to_bytes(8, "little"), b"\xff" * 8])
        os.pwrite(memory, word, at)
    store = Store(memory, PLAN)
    for kept in store.committed.values():
        assert len(kept.sets) == len(kept.shown) == len(kept.carried)
    for name in store.committed:
        store.families[name].arrange(places(), coded([]))
    first_commit(store)
    assert found(memory) == FIRST


def test_the_memory_cannot_be_made_smaller_or_larger(memory: int) -> None:
    for size in (PAGE, 2 * PLAN.size):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, size)
