"""An artifact that does not fit is told from the one that is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.loading import cache_key
from exporter.loading.cache_key import CacheKey

WANTED = CacheKey("text", "header", "exporter", "ab" * 32, "6.1.0-56-amd64", "x86_64")
NEEDED = "it needs linux 6.1.0-56-amd64 x86_64, BTF abababababab; "


def test_nothing_of_the_program() -> None:
    assert cache_key.refusal(WANTED, []) == f"{NEEDED}nothing of this program is there"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"release": "6.12.1"}, "linux 6.12.1 x86_64, BTF abababababab: another release"),
        ({"btf": "cd" * 32}, "linux 6.1.0-56-amd64 x86_64, BTF cdcdcdcdcdcd: another BTF"),
        ({"btf": ""}, "linux 6.1.0-56-amd64 x86_64, BTF none: another BTF"),
        (
            {"arch": "aarch64", "btf": "cd" * 32},
            "linux 6.1.0-56-amd64 aarch64, BTF cdcdcdcdcdcd: another architecture and another BTF",
        ),
        ({"text": "x"}, "linux 6.1.0-56-amd64 x86_64, BTF abababababab: another C text or other defines"),
        (
            {"header": "x"},
            "linux 6.1.0-56-amd64 x86_64, BTF abababababab: "
            "another shared header, other modules or another build of a probed file",
        ),
        ({"exporter": "x"}, "linux 6.1.0-56-amd64 x86_64, BTF abababababab: another version of bpf-exporter"),
    ],
)
def test_the_nearest_is_named_with_what_differs(found: dict[str, str], said: str) -> None:
    far = CacheKey("x", "x", "x", "ef" * 32, "5.10.0", "aarch64")
    assert cache_key.refusal(WANTED, [far, replace(WANTED, **found)]) == f"{NEEDED}found for {said}"


def test_each_part_makes_another_key() -> None:
    keys = {WANTED.key("program", "variant"), WANTED.key("program", ""), WANTED.key("", "variant")}
    for name in ("text", "header", "exporter", "btf", "release", "arch"):
        keys.add(replace(WANTED, **{name: "other"}).key("program", "variant"))
    assert len(keys) == 9
