"""Tries and hashes without preallocation, filled by the kernel and read back; ttl on maps of this kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

import pytest

from exporter.collecting.collector import ProgramCollector
from exporter.collecting.maps.open import open_tables
from exporter.collecting.maps.options import Expiring
from exporter.collecting.maps.table import Table
from exporter.collecting.text.exposition import render
from exporter.decoders import Names
from exporter.kernel import bpf, cpus, map_types
from exporter.program import Map
from exporter.spec import DecodeStep, LabelSpec, MetricSpec
from tests.kernel.loaded import RAW, Load
from tests.kernel.programs import spec

CALLS = 23
PREFIXES = [("10.0.0.0/8", (8, 10, 0, 0, 0)), ("10.1.0.0/16", (16, 10, 1, 0, 0)), ("0.0.0.0/0", (0, 0, 0, 0, 0))]

TEXT = """
struct prefix { u32 prefixlen; u8 data[4]; };
struct cell { u32 process; u32 pad; };

BPF_LPM_TRIE(networks, struct prefix, u64, 100);
BPF_F_TABLE("hash", struct cell, u64, plain, 100, BPF_F_NO_PREALLOC);

int on_raw(struct bpf_raw_tracepoint_args *ctx)
{
	struct prefix prefix = { .prefixlen = 32, .data = { 10, 1, 2, 3 } };
	struct cell key = {};
	u64 zero = 0, *count;

	key.process = bpf_get_current_pid_tgid() >> 32;
	if (ctx->args[1] != NR_GETPPID || key.process != PROCESS)
		return 0;
	count = networks.lookup(&prefix);
	if (count)
		__sync_fetch_and_add(count, 1);
	add(plain.lookup_or_try_init(&key, &zero), 1, LOST(plain));
	return 0;
}
"""


def test_a_trie_and_a_hash_without_preallocation(load: Load) -> None:
    """The longest prefix of 10.1.2.3 is the one that counts; labels of a trie's key are networks."""
    cidr = LabelSpec(name="network", field="key", decode=[DecodeStep(name="cidr")])
    metrics = [
        MetricSpec(name="networks_total", type="counter", help="h", map="networks", labels=[cidr]),
        MetricSpec(name="plain_total", type="counter", help="h", map="plain", labels=[]),
    ]
    program = spec(TEXT, [RAW])
    program = program.model_copy(update={"metrics": metrics, "defines": {**program.defines, "PROCESS": os.getpid()}})
    outcome, fds = load(program)
    assert outcome.text == ""
    assert {m.name: m.flags for m in outcome.maps if m.name != "lost_updates"} == {
        "networks": bpf.BPF_F_NO_PREALLOC,
        "plain": bpf.BPF_F_NO_PREALLOC,
    }
    for _, (length, *data) in PREFIXES:
        bpf.map_update(fds.maps["networks"], struct.pack("=I4B", length, *data), bytes(8))
    for _ in range(CALLS):
        os.getppid()
    collector = ProgramCollector(
        outcome,
        program,
        open_tables(outcome, fds.readonly, cpus.possible()),
        Names.empty(),
        possible=cpus.possible_numbers(),
        online=cpus.online,
    )
    text = render(collector.collect(), openmetrics=False).decode()
    assert collector.report.error == ""
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'networks_total{network="0.0.0.0/0"} 0',
        'networks_total{network="10.0.0.0/8"} 0',
        f'networks_total{{network="10.1.0.0/16"}} {CALLS}',
        f"plain_total {CALLS}",
    ]


@pytest.fixture
def trie() -> Iterator[tuple[int, Map]]:
    """IPv4 prefixes, 1,000 of them, each with its number as the value."""
    described = Map("test_trie", bpf.BPF_MAP_TYPE_LPM_TRIE, 8, 8, 2000, bpf.BPF_F_NO_PREALLOC)
    fd = bpf.map_create(described.type, 8, 8, 2000, described.flags, "test_trie")
    for number in range(1000):
        bpf.map_update(fd, prefix(number), struct.pack("=Q", number))
    yield fd, described
    os.close(fd)


def prefix(number: int) -> bytes:
    return struct.pack("=I4B", 24 + number % 9, 10, number >> 8, number & 255, 0)


def contents(table: Table) -> dict[bytes, int]:
    entries = table.read()
    keys = [key.tobytes() for key in entries.keys]
    assert len(set(keys)) == len(keys)  # none came twice
    return dict(zip(keys, (int.from_bytes(value.tobytes(), "little") for value in entries.values), strict=True))


@pytest.mark.parametrize("number", [0, errno.EINVAL, bpf.ENOTSUPP, errno.EINTR])
def test_a_trie_is_read_whole_with_batches_and_without(
    trie: tuple[int, Map], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number:

        def refuse(*_: int) -> tuple[int, bool]:
            raise OSError(number, "BPF_MAP_LOOKUP_BATCH")

        monkeypatch.setattr("exporter.collecting.maps.table.bpf.map_lookup_batch", refuse)
    assert contents(Table(*trie, 1)) == {prefix(n): n for n in range(1000)}


def test_keys_that_go_while_a_trie_is_read_make_no_other_come_twice(
    trie: tuple[int, Map], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.collecting.maps.table._CHUNK", 64)
    fd, _ = trie
    lookup = bpf.map_lookup_batch
    gone: list[bytes] = []

    def deleting(*arguments: int) -> tuple[int, bool]:
        answer = lookup(*arguments)
        if len(gone) < 3:  # the key that the next batch begins behind: without it the kernel starts over
            gone.append(ctypes.string_at(arguments[2], 8))
            assert bpf.map_delete(fd, gone[-1])
        return answer

    monkeypatch.setattr("exporter.collecting.maps.table.bpf.map_lookup_batch", deleting)
    found = contents(Table(*trie, 1))
    stays = {prefix(n): n for n in range(1000) if prefix(n) not in gone}
    assert {key: found.get(key) for key in stays} == stays
    assert len(gone) == 3


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", [bpf.BPF_MAP_TYPE_HASH, bpf.BPF_MAP_TYPE_PERCPU_HASH, bpf.BPF_MAP_TYPE_LRU_HASH])
def test_ttl_deletes_what_did_not_change_from_the_map_itself(kind: int) -> None:
    clock = Clock()
    described = Map("test_ttl", kind, 4, 8, 100)
    fd = bpf.map_create(kind, 4, 8, 100, name="test_ttl")
    each = cpus.possible() if kind in map_types.PERCPU else 1
    try:
        for key in range(10):
            bpf.map_update(fd, struct.pack("I", key), struct.pack("Q", key) * each)
        table = Expiring(Table(fd, described, cpus.possible()), 60.0, clock)
        assert len(table.read()) == 10
        clock.now += 60
        for key in range(3):  # the last CPU's value alone
            bpf.map_update(fd, struct.pack("I", key), struct.pack("Q", key) * (each - 1) + struct.pack("Q", 99))
        assert len(table.read()) == 3
        assert table.expired == 7
        assert [bpf.map_lookup(fd, struct.pack("I", key), 8 * each) is not None for key in range(10)] == [
            key < 3 for key in range(10)
        ]
    finally:
        os.close(fd)


def test_ttl_of_a_map_that_cannot_be_written_is_an_error_that_says_so() -> None:
    clock = Clock()
    fd = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 4, 8, 100, name="test_ttl")
    readonly = bpf.map_fd_by_id(bpf.map_info(fd).id, bpf.BPF_F_RDONLY)
    try:
        bpf.map_update(fd, bytes(4), bytes(8))
        table = Expiring(Table(readonly, Map("m", bpf.BPF_MAP_TYPE_HASH, 4, 8, 100), 1), 60.0, clock)
        table.read()
        clock.now += 60
        with pytest.raises(PermissionError, match="BPF_MAP_DELETE_ELEM"):
            table.read()
    finally:
        os.close(fd)
        os.close(readonly)
