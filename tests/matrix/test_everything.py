"""Every program that this run loads on each kernel: it counts what somebody else counts, or the kernel lacks something.

`make matrix` has every bundled program and every one of tests/peer; `make test` those of everything.loaded_on().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.matrix import everything, kernels, table
from tests.matrix.examine import HERE, Examined
from tests.matrix.kernels import TESTED
from tests.peer.checks import wrong
from tests.peer.counting import CHECKS
from tests.peer.specs import LATER

Matrix = Callable[[str], Examined]

PROGRAMS, REFUSED = everything.programs()
# What may keep a program or a variant away: the kernel's own limits. A compiler's or verifier's refusal is our mistake.
LACKING = ("requires", "missing", "unsupported")
# What no `requires` can ask for, so that the variant behind it is tried.
FEWER_ARGUMENTS = "reads more arguments than this tracepoint has"

# Which kernel lacks what a program needs, and the reason's word.
LACKS: dict[str, dict[str, str]] = {
    "peer/cgroup_rstat_flushing": dict.fromkeys(("5.10", "6.1", "arm64-6.1"), "missing"),  # its events are 6.10's
    "peer/llcstat": dict.fromkeys(TESTED, "unsupported"),  # a CPU that counts cache misses
    "peer/unix_socket_backlog": dict.fromkeys(set(TESTED) - {"7.2"}, "requires"),  # unix_find_other() of 6.16
    "programs/kfree_skb": {"5.10": "requires"},  # reasons are 5.17's
    "programs/udp_drops": {"arm64-6.1": "requires"},  # fexit, or the tracepoint of 6.6
    **dict.fromkeys(
        ("peer/cachestat", "peer/cfs_throttling", "peer/kstack", "peer/tcp_retransmit", "peer/unix_accept_latency"),
        dict.fromkeys(kernels.NO_TRAMPOLINES, "unsupported"),
    ),
}

HERE_TOO = (*TESTED, HERE) if kernels.WHOLE else TESTED
IN_THIS_RUN = [(series, name) for series in HERE_TOO for name in everything.loaded_on(series)]


@pytest.fixture(scope="module", autouse=True)
def _table(on: Matrix, asked_for: list[str]) -> Iterator[None]:
    """Written when all is done, and shown."""
    yield
    if kernels.WHOLE:
        path = kernels.cache_directory() / "matrix.md"
        path.write_text(table.markdown([on(series) for series in asked_for]))
        print(f"\n\n{path.read_text()}\n{path}")


def test_only_what_waits_for_a_later_version_is_refused() -> None:
    assert sorted(REFUSED) == sorted(f"peer/{name}" for name in LATER)


@pytest.mark.parametrize(("series", "name"), IN_THIS_RUN)
def test_program_counts_what_somebody_else_counts_or_the_kernel_lacks_what_it_needs(
    on: Matrix, series: str, name: str
) -> None:
    found = on(series).value(f"load/{name}")
    lacks = LACKS.get(name, {}).get(series, "")
    if series == HERE and found["reason"] in LACKING:  # whatever kernel that is
        lacks = found["reason"]
    assert (found["state"] == "running", found["reason"]) == (not lacks, lacks), (
        found["text"],
        _said(on(series), name),
    )
    # Nor may a variant that was tried before the one that runs be refused for anything else.
    refused = [text for _, reason, text in found["attempts"] if reason not in LACKING and FEWER_ARGUMENTS not in text]
    assert lacks or not refused, (refused, _said(on(series), name))
    if name in CHECKS and not lacks:
        assert not wrong(found["counted"])


@pytest.mark.parametrize(
    ("series", "name"), [case for case in IN_THIS_RUN if case[1] in CHECKS and len(PROGRAMS[case[1]].variants) > 1]
)
def test_every_variant_behind_the_one_that_is_used_counts_the_same(on: Matrix, series: str, name: str) -> None:
    chosen = on(series).value(f"load/{name}")
    names = [variant.name for variant in PROGRAMS[name].variants]
    for variant in names[names.index(chosen["variant"]) + 1 :] if chosen["state"] == "running" else []:
        found = on(series).value(f"variant/{name}/{variant}")
        if found["state"] == "running":
            assert not wrong(found["counted"]), variant
        else:
            assert found["reason"] in LACKING, (found["text"], _said(on(series), name))


def _said(examined: Examined, name: str) -> dict[str, str]:
    """What the compiler said here of the variants that it refused: there they are only not in the cache."""
    said = examined.compiled_everything.items()
    return {variant: text for variant, text in said if text and variant.rpartition("/")[0] == name}
