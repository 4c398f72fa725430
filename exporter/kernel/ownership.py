"""The users who can change a file, by its owner and mode (inode(7)).

A file's group may have write permission if it is the private group of the owner, which has the owner's number
(USERGROUPS_ENAB in login.defs(5)): with umask 002 all files of a checkout are group-writable. Group 0 is not private:
OpenShift runs every container in it. ACLs and parent directories are not checked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection


def other_writers(status: os.stat_result, owners: Collection[int]) -> str:
    """Return why other users than `owners` (user ids) can change a file, as a predicate of the file: "belongs to user
    7", "can be written by everybody (mode 0666)"; "" if they cannot."""
    if status.st_uid not in owners:
        return f"belongs to user {status.st_uid}"
    is_private = status.st_gid == status.st_uid != 0
    bits = {"its group": 0 if is_private else stat.S_IWGRP, "everybody": stat.S_IWOTH}
    writers = [who for who, bit in bits.items() if status.st_mode & bit]
    return f"can be written by {' and '.join(writers)} (mode {stat.S_IMODE(status.st_mode):04o})" if writers else ""
