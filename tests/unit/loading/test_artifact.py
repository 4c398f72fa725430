"""Artifacts on disk: equal after reading, missed when damaged, made again when anything they depend on changes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.loading import artifact, cache_key
from exporter.loading.artifact import Artifact, Cache, Function
from exporter.loading.target import Target
from exporter.program import Map, Member, Type
from exporter.spec import ProgramSpec, VariantSpec

PROGRAM = ProgramSpec(
    name="sends",
    defines={"SAMPLE": 10},
    variants=[VariantSpec(name="fexit", attach=[])],
    metrics=[],
    source=Path("sends.c"),
    text="int x;",
)
TARGET = Target(Path("/sys/kernel/btf/vmlinux"), "6.1.0-56-amd64", "x86_64", "ab" * 32)
KEY = cache_key.key(PROGRAM, PROGRAM.variants[0], TARGET, "header")
STATE = Type("enum", "state", 4, values=(("OPEN", 0), ("CLOSED", 1)))
ARTIFACT = Artifact(
    key=KEY,
    program="sends",
    variant="fexit",
    cache_key=cache_key.of(PROGRAM, TARGET, "header"),
    bcc_version="0.26.0",
    license="GPL",
    maps=(
        Map(
            "sends", 1, 8, 8, 1024, 0,
            Type("struct", "key", 8, members=(Member("state", 0, STATE), Member("port", 32, Type("int", "__be16", 2)))),
            Type("array", "u32", 8, element=Type("int", "u32", 4), count=2),
            lost_index=0,
        ),
    ),
    functions=(Function("on_send", bytes(range(16)), ((0, "sends"),)),),
    btf=b"\x9f\xeb\x01\x00",
    btf_types={"sends": (3, 5)},
    compile_seconds=0.7,
)  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    mask = os.umask(0o022)
    yield Cache(tmp_path / "cache")
    os.umask(mask)


def entry(cache: Cache) -> Path:
    return cache.directory / f"{KEY}.json"


def test_what_is_put_comes_back_equal(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(ARTIFACT)
    assert cache.get(KEY) == ARTIFACT
    assert os.listdir(cache.directory) == [f"{KEY}.json"]


def test_another_bcc_misses_and_no_bcc_hits(cache: Cache) -> None:
    cache.put(ARTIFACT)
    assert cache.get(KEY, "0.26.0") == ARTIFACT
    assert cache.get(KEY, "0.31.0") is None
    assert cache.get(KEY, None) == ARTIFACT


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda text: text[: len(text) // 2], "Unterminated string|Expecting"),
        (lambda _: "", "Expecting value"),
        (lambda _: "[]", "not an artifact"),
        (lambda _: "{}", "not an artifact"),
        (lambda text: text.replace('"format":3', '"format":99'), "format 99, expected 3"),
        (lambda text: text.replace('"license":"GPL"', '"license":"MIT"'), "its content is not what its digest says"),
        (lambda text: text.replace('"AAEC', '"AAED'), "its content is not what its digest says"),
        (lambda _: "[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_entry_is_a_logged_miss(cache: Cache, damage: Callable[[str], str], cause: str) -> None:
    cache.put(ARTIFACT)
    text = entry(cache).read_text()
    damaged = damage(text)
    assert damaged != text
    entry(cache).write_text(damaged)
    with capture_logs() as logs:
        assert cache.get(KEY) is None
    assert [log["event"] for log in logs] == ["artifact damaged; it is compiled again"]
    assert any(word in logs[0]["error"] for word in cause.split("|"))
    cache.put(ARTIFACT)
    assert cache.get(KEY) == ARTIFACT


def test_the_entry_of_another_key_is_a_miss(cache: Cache) -> None:
    cache.put(replace(ARTIFACT, key="0" * 64))
    os.rename(cache.directory / f"{'0' * 64}.json", entry(cache))
    assert cache.get(KEY) is None


def test_what_others_may_write_is_not_used(cache: Cache) -> None:
    cache.put(ARTIFACT)
    entry(cache).chmod(0o666)
    with capture_logs() as logs:
        assert cache.get(KEY) is None
    assert logs[0]["error"] == "it can be written by its group and everybody (mode 0666)"
    cache.directory.chmod(0o777)
    with pytest.raises(PermissionError, match=r"it can be written by its group and everybody \(mode 0777\)"):
        Cache(cache.directory)


def test_a_file_where_the_directory_should_be_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(NotADirectoryError, match="it is no directory"):
        Cache(tmp_path / "cache")


def test_what_nobody_uses_is_removed(cache: Cache) -> None:
    old = {name: cache.directory / name for name in ("a.json", ".new-killed", "b.json", ".new-running")}
    for name, age in (("a.json", 91), ("b.json", 89), (".new-killed", 1), (".new-running", 0)):
        old[name].touch()
        os.utime(old[name], (0, time.time() - age * 86400))
    cache.put(ARTIFACT)
    assert sorted(os.listdir(cache.directory)) == sorted([".new-running", "b.json", f"{KEY}.json"])
    os.utime(entry(cache), (0, 0))
    assert cache.get(KEY) == ARTIFACT
    assert time.time() - entry(cache).stat().st_mtime < 60


def test_a_link_is_not_followed(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(artifact.dumps(ARTIFACT))
    entry(cache).symlink_to(tmp_path / "elsewhere")
    assert cache.get(KEY) is None


def test_a_name_that_is_no_key_is_refused(cache: Cache) -> None:
    with pytest.raises(ValueError, match="no key"):
        cache.get("../../etc/passwd")


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ("text", cache_key.key(PROGRAM.model_copy(update={"text": "int y;"}), PROGRAM.variants[0], TARGET, "header")),
        ("name", cache_key.key(PROGRAM.model_copy(update={"name": "s"}), PROGRAM.variants[0], TARGET, "header")),
        ("defines", cache_key.key(PROGRAM.model_copy(update={"defines": {}}), PROGRAM.variants[0], TARGET, "header")),
        ("variant", cache_key.key(PROGRAM, VariantSpec(name="kprobe", attach=[]), TARGET, "header")),
        ("header", cache_key.key(PROGRAM, PROGRAM.variants[0], TARGET, "another header")),
        ("btf", cache_key.key(PROGRAM, PROGRAM.variants[0], replace(TARGET, btf_sha256="cd" * 32), "header")),
        ("release", cache_key.key(PROGRAM, PROGRAM.variants[0], replace(TARGET, release="6.1.0-57-amd64"), "header")),
        ("arch", cache_key.key(PROGRAM, PROGRAM.variants[0], replace(TARGET, arch="aarch64"), "header")),
    ],
)
def test_everything_the_bytecode_depends_on_is_in_the_key(change: str, other: str) -> None:
    assert other != KEY


def test_where_files_are_is_not_in_the_key() -> None:
    moved = PROGRAM.model_copy(update={"source": Path("/elsewhere/sends.c"), "line": 7})
    target = replace(TARGET, btf_path=Path("/tmp/btf"))
    assert cache_key.key(moved, PROGRAM.variants[0], target, "header") == KEY


def test_the_format_is_plain_json() -> None:
    document = json.loads(artifact.dumps(ARTIFACT))
    assert document["artifact"]["functions"][0]["instructions"] == "AAECAwQFBgcICQoLDA0ODw=="
    assert artifact.loads(artifact.dumps(ARTIFACT)) == ARTIFACT
