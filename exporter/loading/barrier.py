"""The barrier of drained maps: what the server updates to wait until no program is left in a map that was live.

An update of a map of maps returns after an RCU grace period (maybe_wait_bpf_programs(), since 4.20: 1ae80cf31938), and
programs run inside a read-side section. Not so sleepable ones; the loader makes none (BPF_F_SLEEPABLE).
"""

from __future__ import annotations

from exporter.kernel import bpf
from exporter.kernel.features import Kernel
from exporter.loading.refusal import refused
from exporter.program import DRAIN_BARRIER, DRAIN_EPOCHS, Reason


def add(maps: dict[str, int], kernel: Kernel) -> None:
    """To the maps of a program that has some to drain, by name: one more, of a single place that takes a map like that
    of the epochs. RefusedError where the kernel makes none."""
    if DRAIN_EPOCHS not in maps:
        return
    try:
        maps[DRAIN_BARRIER] = bpf.map_create(
            bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, name=DRAIN_BARRIER, inner_map_fd=maps[DRAIN_EPOCHS]
        )
    except OSError as error:
        raise refused(f"create map {DRAIN_BARRIER}", error, kernel, Reason.MAP) from error
