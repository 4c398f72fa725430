"""Rows of 64-bit columns -> one number for each row, equal for equal rows."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Odd, and unknown to whoever chooses keys: nobody can choose keys that all have one hash.
_FACTORS = np.frombuffer(os.urandom(16), np.uint64) | np.uint64(1)


def hashes(columns: Sequence[NDArray[np.int64] | NDArray[np.uint64]], count: int) -> NDArray[np.uint64]:
    """Return the hash of each of `count` rows."""
    mixed = np.zeros(count, np.uint64)
    for column in columns:
        mixed ^= mixed >> np.uint64(29)
        mixed += column.view(np.uint64)
        mixed *= _FACTORS[0]
    mixed ^= mixed >> np.uint64(32)
    mixed *= _FACTORS[1]
    return mixed
