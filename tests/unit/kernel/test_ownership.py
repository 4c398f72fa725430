"""The users who can change a file besides its owners."""

from __future__ import annotations

import os
import stat

import pytest

from exporter.kernel.ownership import other_writers


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "problem"),
    [
        (0o644, 0, 0, ""),
        (0o700, 7, 100, ""),
        (0o664, 7, 7, ""),  # a private group, as with umask 002
        (0o664, 0, 0, "can be written by its group (mode 0664)"),  # group 0 is nobody's private group
        (0o664, 7, 100, "can be written by its group (mode 0664)"),
        (0o662, 7, 7, "can be written by everybody (mode 0662)"),
        (0o1777, 0, 0, "can be written by its group and everybody (mode 1777)"),
        (0o600, 8, 8, "belongs to user 8"),
    ],
)
def test_a_file_is_changed_by_its_trusted_owner_alone(mode: int, uid: int, gid: int, problem: str) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))
    assert other_writers(status, {0, 7}) == problem
