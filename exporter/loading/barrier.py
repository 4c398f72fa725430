"""The barrier of drained maps: a map that the server updates to wait until no program uses a map that was live.

An update of a map of maps returns after an RCU grace period (maybe_wait_bpf_programs(), since 4.20: 1ae80cf31938), and
programs run inside a read-side section. Sleepable programs do not; the loader makes none (BPF_F_SLEEPABLE).
"""

from __future__ import annotations

from exporter.kernel import bpf
from exporter.kernel.features import Kernel
from exporter.loading.refusal import refused
from exporter.program import DRAIN_BARRIER, DRAIN_EPOCHS, Reason


def add(maps: dict[str, int], kernel: Kernel) -> None:
    """Add the barrier to the maps of a program, by name, if it has maps to drain: a map of one map that is like the one
    of the epochs. RefusedError where the kernel refuses it."""
    if DRAIN_EPOCHS not in maps:
        return
    try:
        maps[DRAIN_BARRIER] = bpf.map_create(
            bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, name=DRAIN_BARRIER, inner_map_fd=maps[DRAIN_EPOCHS]
        )
    except OSError as error:
        raise refused(f"create map {DRAIN_BARRIER}", error, kernel, Reason.MAP) from error
