"""What maps are said to take, against what this kernel says in /proc/self/fdinfo of the maps themselves."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.binding.map_memory import map_memory, over_limit
from exporter.kernel import bpf, cpus
from exporter.program import Map

SIZES = [(4, 8, 1024), (20, 12, 1000), (64, 232, 5000), (1, 1, 3)]
KINDS = {
    "hash": (bpf.BPF_MAP_TYPE_HASH, 0),
    "LRU hash": (bpf.BPF_MAP_TYPE_LRU_HASH, 0),
    "per-CPU hash": (bpf.BPF_MAP_TYPE_PERCPU_HASH, 0),
    "LRU per-CPU hash": (bpf.BPF_MAP_TYPE_LRU_PERCPU_HASH, 0),
    "array": (bpf.BPF_MAP_TYPE_ARRAY, 0),
    "per-CPU array": (bpf.BPF_MAP_TYPE_PERCPU_ARRAY, 0),
}


@pytest.fixture
def opened() -> Iterator[list[int]]:
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


def says(fd: int) -> int:
    """bpf_map_show_fdinfo(): the true figure from 6.4 on."""
    match = re.search(r"memlock:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize(("key", "value", "entries"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_a_map_is_what_the_kernel_counts(
    kind: str, key: int, value: int, entries: int, opened: list[int]
) -> None:
    type_, flags = KINDS[kind]
    key = 4 if "array" in kind else key
    opened.append(bpf.map_create(type_, key, value, entries, flags, "test_memory"))
    expected = map_memory(Map("m", type_, key, value, entries, flags), cpus.possible())
    assert 0 <= says(opened[0]) - expected < 2048  # its own struct, whatever it holds


def test_memory_of_a_hash_without_preallocation_is_that_of_a_full_one(opened: list[int]) -> None:
    map_ = Map("m", bpf.BPF_MAP_TYPE_HASH, 4, 16, 500, bpf.BPF_F_NO_PREALLOC)
    opened.append(bpf.map_create(map_.type, 4, 16, 500, map_.flags))
    for number in range(500):
        bpf.map_update(opened[0], struct.pack("I", number), bytes(16))
    assert abs(says(opened[0]) - map_memory(map_, cpus.possible())) < 500 * 8 + 2048


def test_memory_of_a_full_trie_and_of_stacks_is_enough(opened: list[int]) -> None:
    trie = Map("t", bpf.BPF_MAP_TYPE_LPM_TRIE, 8, 8, 500, bpf.BPF_F_NO_PREALLOC)
    opened.append(bpf.map_create(trie.type, 8, 8, 500, trie.flags))
    for number in range(500):
        bpf.map_update(opened[0], struct.pack("=I4B", 32, 10, number % 7, number % 250, number // 250), bytes(8))
    stacks = Map("s", bpf.BPF_MAP_TYPE_STACK_TRACE, 4, 1016, 1000)
    opened.append(bpf.map_create(stacks.type, 4, 1016, 1000))
    for fd, map_ in zip(opened, (trie, stacks), strict=True):
        expected = map_memory(map_, cpus.possible())
        assert expected / 4 <= says(fd) <= expected + 2048


def test_a_program_over_the_limit_is_told_its_figure() -> None:
    small = Map("small", bpf.BPF_MAP_TYPE_ARRAY, 4, 8, 16)
    large = Map("large", bpf.BPF_MAP_TYPE_PERCPU_HASH, 20, 232, 5000)
    assert over_limit([small], 128, 1 << 20) == ""
    assert over_limit([small, large], 8, 256 << 20) == ""
    assert over_limit([small, large], 128, 64 << 20) == (
        "maps: 142.1 MiB of kernel memory with 128 possible CPUs, limits.map_memory is 64.0 MiB "
        "(largest: large 142.1 MiB, small 0.0 MiB; make them smaller in the C text, or raise the limit)"
    )
