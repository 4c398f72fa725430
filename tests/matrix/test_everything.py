"""Every bundled program and every one of tests/peer on every kernel: it runs, or the kernel lacks what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.matrix import everything, kernels, table
from tests.matrix.examine import HERE, Examined
from tests.matrix.kernels import TESTED
from tests.peer.specs import LATER

Matrix = Callable[[str], Examined]

PROGRAMS, REFUSED = everything.programs()
# What may keep a program away: the kernel's own limits. A compiler's or verifier's refusal is a mistake of ours.
LACKING = ("requires", "missing", "unsupported")
# What no `requires` can ask for, so that the variant behind it is tried.
FEWER_ARGUMENTS = "reads more arguments than this tracepoint has"

every_kernel = pytest.mark.parametrize("series", [*TESTED, HERE])


@pytest.fixture(scope="module", autouse=True)
def _table(on: Matrix, asked_for: list[str]) -> Iterator[None]:
    """Written when all is done, and shown."""
    yield
    path = kernels.cache_directory() / "matrix.md"
    path.write_text(table.markdown([on(series) for series in asked_for]))
    print(f"\n\n{path.read_text()}\n{path}")


def test_only_what_waits_for_a_later_version_is_refused() -> None:
    assert sorted(REFUSED) == sorted(f"peer/{name}" for name in LATER)


@every_kernel
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_runs_or_the_kernel_lacks_what_it_needs(on: Matrix, series: str, name: str) -> None:
    found = on(series).value(f"load/{name}")
    if found["state"] != "running":
        assert found["reason"] in LACKING, (found["text"], _compiled(on(series), name))
    # Nor may a variant that was tried before the one that runs.
    wrong = [text for _, reason, text in found["attempts"] if reason not in LACKING and FEWER_ARGUMENTS not in text]
    assert found["state"] != "running" or not wrong, (wrong, _compiled(on(series), name))


def _compiled(examined: Examined, name: str) -> dict[str, str]:
    """What the compiler said here of the variants that it refused: there they are only not in the cache."""
    said = examined.compiled_everything.items()
    return {variant: text for variant, text in said if text and variant.rpartition("/")[0] == name}
