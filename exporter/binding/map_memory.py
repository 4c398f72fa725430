"""The kernel memory of a program's full maps, computed before they are created.

The formulas are those of map_mem_usage() of each map type (6.4, 90a5527d7686). They count possible CPUs: a host with 8
of 128 possible CPUs pays for 128. They do not count what the allocator rounds up.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.kernel import bpf, map_types
from exporter.program import Map

_MIB = 1 << 20

# Sizes of 64-bit kernels: struct htab_elem without key and value, struct bucket (kernel/bpf/hashtab.c); struct
# lpm_trie_node without its data (lpm_trie.c, with the rcu_head that it had until 6.12); struct stack_map_bucket without
# its frames (stackmap.c).
_HTAB_ELEM, _BUCKET, _TRIE_NODE, _STACK_BUCKET, _POINTER = 48, 16, 40, 16, 8


def map_memory(map: Map, possible_cpus: int) -> int:  # noqa: A002 (the kernel's word)
    """Return the bytes of a full map on a host with so many possible CPUs; of an unknown type those of keys and
    values."""
    percpu = map.type in map_types.PERCPU
    values = _up(map.value_size) * (possible_cpus if percpu else 1)
    if map.type in map_types.HASHES:
        # Without preallocation an entry has a list node more, and exists only while it is used.
        extra = 2 * _POINTER if map.flags & bpf.BPF_F_NO_PREALLOC else 0
        pointer = _POINTER if percpu else 0
        entries = map.max_entries
        if map.type == bpf.BPF_MAP_TYPE_HASH and not extra:
            entries += possible_cpus  # one spare entry each, so that an update in place does not allocate
        return _buckets(map.max_entries) * _BUCKET + entries * (
            _HTAB_ELEM + _up(map.key_size) + pointer + values + extra
        )
    if map.type == bpf.BPF_MAP_TYPE_PERCPU_ARRAY:
        return map.max_entries * (_POINTER + values)
    if map.type == bpf.BPF_MAP_TYPE_LPM_TRIE:
        # Each entry can need an intermediate node.
        return 2 * map.max_entries * (_TRIE_NODE + map.key_size + map.value_size)
    if map.type == bpf.BPF_MAP_TYPE_STACK_TRACE:
        buckets = _buckets(map.max_entries)
        return buckets * _POINTER + map.max_entries * (_STACK_BUCKET + map.value_size)
    if map.type == bpf.BPF_MAP_TYPE_RINGBUF:
        return map.max_entries
    if map.type == bpf.BPF_MAP_TYPE_ARRAY:
        return map.max_entries * values
    return map.max_entries * (_up(map.key_size) + max(values, _POINTER))


def over_limit(maps: Sequence[Map], possible_cpus: int, limit: int) -> str:
    """Return why the maps of a program exceed `limit` bytes; "" if they do not."""
    sizes = sorted(((map_memory(m, possible_cpus), m.name) for m in maps), reverse=True)
    total = sum(size for size, _ in sizes)
    if total <= limit:
        return ""
    largest = ", ".join(f"{name} {size_text(size)}" for size, name in sizes[:3])
    return (
        f"maps: {size_text(total)} of kernel memory with {possible_cpus} possible CPUs, limits.map_memory is"
        f" {size_text(limit)} (largest: {largest}; make them smaller in the C text, or raise the limit)"
    )


def _up(size: int) -> int:
    return (size + 7) // 8 * 8


def _buckets(entries: int) -> int:
    """roundup_pow_of_two()."""
    return 1 << max(0, entries - 1).bit_length()


def size_text(size: int) -> str:
    """Return a size in MiB for messages."""
    return f"{size / _MIB:.1f} MiB"
