"""Who can change a file: its owner, and those whom its mode lets write (inode(7)).

The one rule for a file's group: it may write where it is the owner's private group, which has the owner's number
(USERGROUPS_ENAB in login.defs(5)); with umask 002 every file of a checkout is writable by it. Group 0 is nobody's
private group: OpenShift runs every container in it. ACLs and the directories above a file are not checked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection


def other_writers(status: os.stat_result, owners: Collection[int]) -> str:
    """Return why somebody else than `owners` (user ids) can change a file, as the end of a sentence whose subject is
    the file: "belongs to user 7", "can be written by everybody (mode 0666)"; "" where nobody else can."""
    if status.st_uid not in owners:
        return f"belongs to user {status.st_uid}"
    is_private = status.st_gid == status.st_uid != 0
    bits = {"its group": 0 if is_private else stat.S_IWGRP, "everybody": stat.S_IWOTH}
    writers = [who for who, bit in bits.items() if status.st_mode & bit]
    return f"can be written by {' and '.join(writers)} (mode {stat.S_IMODE(status.st_mode):04o})" if writers else ""
