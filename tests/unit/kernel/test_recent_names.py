"""The bounded cache of names."""

from __future__ import annotations

from exporter.kernel.recent_names import RecentNames


def test_the_name_that_was_not_used_for_longest_is_dropped() -> None:
    names = RecentNames[int](2)
    names.add(1, "one")
    names.add(2, "two")
    assert names.get(1) == "one"
    names.add(3, "three")
    assert [names.get(key) for key in (1, 2, 3)] == ["one", None, "three"]
    names.add(1, "uno")
    assert (names.get(1), len(names), 2 in names) == ("uno", 2, False)
