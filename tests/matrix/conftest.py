"""One boot a kernel for all tests of a run: the first test that asks starts every kernel that the run needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.matrix import examine, kernels


@pytest.fixture(scope="session")
def asked_for(request: pytest.FixtureRequest) -> list[str]:
    """The series that tests of this run ask for."""
    wanted = {
        item.callspec.params["series"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "series" in item.callspec.params
    }
    return [series for series in (*kernels.TESTED, examine.HERE) if series in wanted]


@pytest.fixture(scope="session")
def on(asked_for: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], examine.Examined]]:
    """on("6.1") is that kernel examined; it waits for the machine."""
    # Not below the directory of another user, whatever umask says: artifacts are kernel code.
    pool, running = examine.start(asked_for, tmp_path_factory.mktemp("matrix"))
    shown: set[str] = set()

    def of(series: str) -> examine.Examined:
        examined = running[series].result()
        if series not in shown:
            shown.add(series)
            times = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in examined.seconds.items())
            print(f"\nlinux {examined.kernel or series}: {times}")
        return examined

    yield of
    pool.shutdown(wait=True, cancel_futures=True)
