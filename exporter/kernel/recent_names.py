"""A bounded cache of names: a thing keeps its name after it is gone, until names of others push it out."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")


class RecentNames(Generic[K]):
    """At most `most` names by key; the one that was not used for longest is dropped first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: OrderedDict[K, str] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._names

    def __len__(self) -> int:
        return len(self._names)

    def get(self, key: K) -> str | None:
        """Return the name of `key` and count that as a use; None for an unknown key."""
        if key not in self._names:
            return None
        self._names.move_to_end(key)
        return self._names[key]

    def add(self, key: K, name: str) -> None:
        self._names[key] = name
        self._names.move_to_end(key)
        if len(self._names) > self._most:
            self._names.popitem(last=False)
