"""Names of events as `perf list` prints them -> (type, config) of perf_event_open(2).

Numbers: enum perf_type_id, perf_hw_id, perf_sw_ids and perf_hw_cache_* in include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

PERF_TYPE_HARDWARE = 0
PERF_TYPE_SOFTWARE = 1
PERF_TYPE_HW_CACHE = 3

_HARDWARE = {
    "cpu-cycles": 0,
    "cycles": 0,
    "instructions": 1,
    "cache-references": 2,
    "cache-misses": 3,
    "branch-instructions": 4,
    "branches": 4,
    "branch-misses": 5,
    "bus-cycles": 6,
    "stalled-cycles-frontend": 7,
    "idle-cycles-frontend": 7,
    "stalled-cycles-backend": 8,
    "idle-cycles-backend": 8,
    "ref-cycles": 9,
}
_SOFTWARE = {
    "cpu-clock": 0,
    "task-clock": 1,
    "page-faults": 2,
    "faults": 2,
    "context-switches": 3,
    "cs": 3,
    "cpu-migrations": 4,
    "migrations": 4,
    "minor-faults": 5,
    "major-faults": 6,
    "alignment-faults": 7,
    "emulation-faults": 8,
    "cgroup-switches": 11,  # 5.13
}
_CACHES = {"L1-dcache": 0, "L1-icache": 1, "LLC": 2, "dTLB": 3, "iTLB": 4, "branch": 5, "node": 6}
_OPERATIONS = {"load": 0, "store": 1, "prefetch": 2}
_PLURALS = {"load": "loads", "store": "stores", "prefetch": "prefetches"}
_MISS = 1 << 16


def _cache_events() -> dict[str, int]:
    events = {}
    for cache, number in _CACHES.items():
        for operation, code in _OPERATIONS.items():
            config = number | code << 8
            events[f"{cache}-{_PLURALS[operation]}"] = config
            events[f"{cache}-{operation}-misses"] = config | _MISS
    return events


NAMES: dict[str, tuple[int, int]] = {
    **{name: (PERF_TYPE_HARDWARE, config) for name, config in _HARDWARE.items()},
    **{name: (PERF_TYPE_SOFTWARE, config) for name, config in _SOFTWARE.items()},
    **{name: (PERF_TYPE_HW_CACHE, config) for name, config in _cache_events().items()},
}


def parse(name: str) -> tuple[int, int] | None:
    """Return (type, config) of "cpu-clock", "L1-dcache-load-misses" or, in numbers, "4:0x01c2"; None for other
    texts."""
    if name in NAMES:
        return NAMES[name]
    kind, colon, config = name.partition(":")
    try:
        event = (int(kind, 0), int(config, 0)) if colon else None
    except ValueError:
        return None
    return event if event is None or (event[0] < 1 << 32 and event[1] < 1 << 64) else None
