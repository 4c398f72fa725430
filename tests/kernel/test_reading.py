"""Maps of this kernel, filled with known entries, read back exactly."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator

import pytest

from exporter.collecting.maps.table import ReadError, Table
from exporter.kernel import bpf, cpus
from exporter.program import Map
from tests.waiting import child

KINDS = {
    "array": bpf.BPF_MAP_TYPE_ARRAY,
    "per-CPU array": bpf.BPF_MAP_TYPE_PERCPU_ARRAY,
    "hash": bpf.BPF_MAP_TYPE_HASH,
    "per-CPU hash": bpf.BPF_MAP_TYPE_PERCPU_HASH,
    "LRU hash": bpf.BPF_MAP_TYPE_LRU_HASH,
    "LRU per-CPU hash": bpf.BPF_MAP_TYPE_LRU_PERCPU_HASH,
}
CPUS = cpus.possible()

MakeMap = Callable[..., tuple[int, Map]]


@pytest.fixture
def make_map() -> Iterator[MakeMap]:
    """Makes maps of u32 keys and closes them: (kind, entries, value size) -> (fd, description)."""
    fds = []

    def make(kind: str, max_entries: int, value_size: int = 8, key_size: int = 4) -> tuple[int, Map]:
        fd = bpf.map_create(KINDS[kind], key_size, value_size, max_entries, name="test_reading")
        fds.append(fd)
        return fd, Map("test_reading", KINDS[kind], key_size, value_size, max_entries)

    yield make
    for fd in fds:
        os.close(fd)


def value_of(kind: str, number: int) -> list[int]:
    """The value that a test puts in, for each CPU that the map has values of: large, so that floats would round it."""
    each = CPUS if "per-CPU" in kind else 1
    return [(number << 48) + 1 + cpu for cpu in range(each)]


def fill(fd: int, kind: str, keys: range) -> None:
    for key in keys:
        values = value_of(kind, key)
        bpf.map_update(fd, struct.pack("I", key), struct.pack(f"{len(values)}Q", *values))


def contents(table: Table) -> dict[int, list[int]]:
    """What the table reads, with a failure if a key comes twice."""
    entries = table.read()
    keys = [struct.unpack("I", key.tobytes())[0] for key in entries.keys]
    assert len(set(keys)) == len(keys)
    values = [list(struct.unpack(f"{each.size // 8}Q", each.tobytes())) for each in entries.values]
    return dict(zip(keys, values, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_is_read_once_and_exactly(make_map: MakeMap, kind: str) -> None:
    fd, description = make_map(kind, 23 if "array" in kind else 1000)
    fill(fd, kind, range(23))
    table = Table(fd, description, CPUS)
    expected = {key: value_of(kind, key) for key in range(23)}
    assert contents(table) == expected
    assert contents(table) == expected  # the buffers are used again


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_keys_that_change_are_seen_by_the_next_read(make_map: MakeMap, kind: str) -> None:
    fd, description = make_map(kind, 23 if "array" in kind else 1000)
    fill(fd, kind, range(23))
    table = Table(fd, description, CPUS)
    keys = table.read().keys
    assert table.read().keys is keys
    last = [0] * (len(value_of(kind, 7)) - 1) + [1]
    bpf.map_update(fd, struct.pack("I", 7), struct.pack(f"{len(last)}Q", *last))
    assert contents(table)[7] == last
    if "array" not in kind:
        bpf.map_delete(fd, struct.pack("I", 7))
        assert 7 not in contents(table)
        fill(fd, kind, range(23, 900))  # the buffers grow
        if "LRU" not in kind:  # which makes room before it is full
            assert len(contents(table)) == 899


def test_a_read_that_failed_does_not_spoil_the_next_one(make_map: MakeMap) -> None:
    fd, description = make_map("hash", 8)
    fill(fd, "hash", range(8))
    table = Table(fd, description, CPUS)
    table.read()
    bpf.map_update(fd, struct.pack("I", 1), struct.pack("Q", 5))
    whole, table._most = table._most, 4  # so that it ends in the middle
    table._chunk = 2
    with pytest.raises((ReadError, OSError)):
        table.read()
    table._most, table._chunk = whole, 8
    assert contents(table) == {key: [5] if key == 1 else value_of("hash", key) for key in range(8)}


@pytest.mark.parametrize("kind", KINDS)
def test_read_only_descriptors_are_enough(make_map: MakeMap, kind: str) -> None:
    fd, description = make_map(kind, 8)
    fill(fd, kind, range(5))
    readonly = bpf.map_fd_by_id(bpf.map_info(fd).id, bpf.BPF_F_RDONLY)
    try:
        found = contents(Table(readonly, description, CPUS))
    finally:
        os.close(readonly)
    assert {key: found[key] for key in range(5)} == {key: value_of(kind, key) for key in range(5)}


@pytest.mark.parametrize("kind", KINDS)
def test_more_entries_than_one_chunk(make_map: MakeMap, kind: str) -> None:
    fd, description = make_map(kind, 40_000)
    fill(fd, kind, range(9001))
    found = contents(Table(fd, description, CPUS))
    assert {key: found[key] for key in range(9001)} == {key: value_of(kind, key) for key in range(9001)}
    assert len(found) == (40_000 if "array" in kind else 9001)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "array" not in kind])
def test_an_empty_map_has_no_entries(make_map: MakeMap, kind: str) -> None:
    fd, description = make_map(kind, 10)
    assert contents(Table(fd, description, CPUS)) == {}


@pytest.mark.parametrize("kind", ["hash", "per-CPU hash"])
def test_a_bucket_larger_than_the_chunk_doubles_it(
    make_map: MakeMap, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5,000 entries in 8,192 buckets: some bucket holds more than one of them, so a chunk of 1 cannot be enough.
    monkeypatch.setattr("exporter.collecting.maps.table._CHUNK", 1)
    fd, description = make_map(kind, 5000)
    fill(fd, kind, range(5000))
    refused = []
    lookup = bpf.map_lookup_batch

    def watching(*arguments: int) -> tuple[int, bool]:
        try:
            return lookup(*arguments)
        except OSError as error:
            refused.append(error.errno)
            raise

    monkeypatch.setattr("exporter.collecting.maps.table.bpf.map_lookup_batch", watching)
    assert contents(Table(fd, description, CPUS)) == {key: value_of(kind, key) for key in range(5000)}
    assert set(refused) == {errno.ENOSPC}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, bpf.ENOTSUPP])
@pytest.mark.parametrize("kind", KINDS)
def test_without_batch_lookup_every_entry_is_read_all_the_same(
    make_map: MakeMap, kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(*arguments: int) -> tuple[int, bool]:  # as kernels do that lack it for a map type
        asked.append(arguments)
        raise OSError(number, "BPF_MAP_LOOKUP_BATCH")

    monkeypatch.setattr("exporter.collecting.maps.table.bpf.map_lookup_batch", refuse)
    fd, description = make_map(kind, 23)
    fill(fd, kind, range(23))
    table = Table(fd, description, CPUS)
    for _ in range(2):
        found = contents(table)
        assert found == {key: value_of(kind, key) for key in found}
        # An LRU map may evict before it is full; what it kept is read.
        assert len(found) == 23 or ("LRU" in kind and len(found) > 0)
    assert len(asked) == 1  # it is remembered


def test_a_key_walk_survives_deletions(make_map: MakeMap, monkeypatch: pytest.MonkeyPatch) -> None:
    fd, description = make_map("hash", 1000)
    fill(fd, "hash", range(1000))
    stays = set(range(0, 1000, 2))
    next_key = bpf.map_next_key
    steps = deletions = 0

    def deleting(map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        # A few times the key that the walk stands on is deleted, which sends it back to the start.
        nonlocal steps, deletions
        steps += 1
        if key is not None and deletions < 4 and steps % 300 >= 290 and struct.unpack("I", key)[0] not in stays:
            deletions += bpf.map_delete(map_fd, key)
        return next_key(map_fd, key, key_size)

    table = Table(fd, description, CPUS)
    monkeypatch.setattr("exporter.collecting.maps.table.bpf.map_next_key", deleting)
    monkeypatch.setattr(table, "_batches", False)
    found = contents(table)
    assert stays <= set(found)
    assert all(found[key] == value_of("hash", key) for key in stays)
    assert deletions == 4
    assert steps > 1000  # it was sent back


def test_a_walk_that_never_ends_is_an_error(make_map: MakeMap, monkeypatch: pytest.MonkeyPatch) -> None:
    fd, description = make_map("hash", 4)
    fill(fd, "hash", range(4))
    table = Table(fd, description, CPUS)
    first = bpf.map_next_key(fd, None, 4)
    monkeypatch.setattr("exporter.collecting.maps.table.bpf.map_next_key", lambda *_: first)
    monkeypatch.setattr(table, "_batches", False)
    with pytest.raises(ReadError, match=r"^read map test_reading: no end after 1 keys \(they are deleted faster than"):
        table.read()


@pytest.mark.parametrize("chunk", [512, 4096])
@pytest.mark.parametrize("kind", ["hash", "per-CPU hash"])
def test_entries_that_stay_are_read_while_others_come_and_go(
    make_map: MakeMap, kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.collecting.maps.table._CHUNK", chunk)
    fd, description = make_map(kind, 20_000)
    fill(fd, kind, range(5000))

    def churn() -> None:
        while True:
            for key in range(10_000, 14_000):
                values = value_of(kind, 1)
                bpf.map_update(fd, struct.pack("I", key), struct.pack(f"{len(values)}Q", *values))
            for key in range(10_000, 14_000):
                bpf.map_delete(fd, struct.pack("I", key))

    with child(churn):
        table = Table(fd, description, CPUS)
        sizes = set()
        for _ in range(50):
            found = contents(table)
            sizes.add(len(found))
            assert {key: found.get(key) for key in range(5000)} == {key: value_of(kind, key) for key in range(5000)}
    assert len(sizes) > 1  # the others did come and go


@pytest.mark.parametrize("size", [1, 2, 3, 12, 17])
def test_values_of_odd_sizes(make_map: MakeMap, size: int) -> None:
    for kind, each in (("hash", size), ("per-CPU hash", (size + 7) // 8 * 8)):
        fd, description = make_map(kind, 10, size)
        count = CPUS if "per-CPU" in kind else 1
        value = b"".join(bytes([cpu + 1]) * size + bytes(each - size) for cpu in range(count))
        bpf.map_update(fd, struct.pack("I", 7), value)
        entries = Table(fd, description, CPUS).read()
        assert entries.values.shape == (1, count, each)
        assert [row[:size].tobytes() for row in entries.values[0]] == [bytes([cpu + 1]) * size for cpu in range(count)]


def test_long_keys(make_map: MakeMap) -> None:
    fd, description = make_map("hash", 100, key_size=64)
    keys = {struct.pack("I", number) * 16 for number in range(50)}
    for key in keys:
        bpf.map_update(fd, key, bytes(8))
    assert {key.tobytes() for key in Table(fd, description, CPUS).read().keys} == keys


def test_a_closed_map_is_an_error_that_names_the_command(make_map: MakeMap) -> None:
    fd, description = make_map("hash", 10)
    table = Table(os.dup(fd), description, CPUS)
    os.close(table.fd)
    with pytest.raises(OSError, match="BPF_MAP_LOOKUP_BATCH") as raised:
        table.read()
    assert raised.value.errno == errno.EBADF
