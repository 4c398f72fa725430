"""BPF_MAP_DELETE_BATCH of bpf(2): deleting many keys of a map by one system call."""

from __future__ import annotations

import errno

from exporter.kernel import bpf
from exporter.kernel.bpf_attr import MapBatch

BPF_MAP_DELETE_BATCH = 27  # include/uapi/linux/bpf.h


def map_delete_batch(fd: int, keys_addr: int, key_size: int, count: int) -> None:
    """Delete the `count` adjacent keys at the address, and skip keys that do not exist.

    Since 5.6. OSError EPERM for a read-only fd, EINVAL where the kernel or the map type has no such command.
    """
    done = 0
    while done < count:
        attr = MapBatch(keys=keys_addr + done * key_size, count=count - done, map_fd=fd)
        try:
            bpf.call(BPF_MAP_DELETE_BATCH, attr, "BPF_MAP_DELETE_BATCH", f"fd {fd}")
            return
        except OSError as error:
            # generic_map_delete_batch() stops at a key that does not exist, and returns how many it has deleted.
            if error.errno != errno.ENOENT:
                raise
            done += attr.count + 1
