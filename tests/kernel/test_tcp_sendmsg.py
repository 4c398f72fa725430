"""tcp_sendmsg against sends of every size, made in a network namespace and a cgroup of the test's own."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import bundled
from tests.kernel.bundled import Running, Samples
from tests.kernel.programs import host
from tests.kernel.workloads import namespaces, sends

CALLS, BYTES, ERRORS = (f"ebpf_tcp_sendmsg_{what}_total" for what in ("calls", "bytes", "errors"))
SIZES = "ebpf_tcp_sendmsg_size_bytes"
PORT = 20000 + os.getpid() % 10000
COUNT = 23
ATTEMPTS = 5  # sizes have no cgroup: a run during which others on this host sent over TCP is repeated


@pytest.fixture(scope="module")
def tcp_sendmsg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with bundled.running(bundled.spec("tcp_sendmsg"), host(tmp_path_factory.mktemp("artifacts"))) as running:
        yield running


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with namespaces.namespace(f"send{os.getpid()}") as name:
        yield name


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup that looks like a service's, with one that looks like a container's inside."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
    service = root / f"test-{secrets.token_hex(4)}.service"
    container = service / f"docker-{secrets.token_hex(32)}.scope"
    service.mkdir()
    container.mkdir()
    yield container
    container.rmdir()
    service.rmdir()


def labels(cgroup: Path) -> dict[str, str]:
    return {"unit": cgroup.parent.name, "container": cgroup.name.removeprefix("docker-")[:12]}


def test_calls_bytes_and_errors_are_those_that_were_made(tcp_sendmsg: Running, namespace: str, cgroup: Path) -> None:
    before = tcp_sendmsg.scrape()
    made = namespaces.call(namespace, sends.make, COUNT, PORT, join=cgroup)
    rise = tcp_sendmsg.scrape().since(before)
    for family, counted in made.items():
        found = {name: rise.sum(name, family=family, **labels(cgroup)) for name in (CALLS, BYTES, ERRORS)}
        assert found == {CALLS: counted["calls"], BYTES: counted["bytes"], ERRORS: counted["errors"]}, family
        assert counted["errors"] > COUNT, "EPIPE and EAGAIN"


def test_each_size_is_in_the_bucket_that_holds_it(tcp_sendmsg: Running, namespace: str, cgroup: Path) -> None:
    rise: Samples
    for _ in range(ATTEMPTS):
        before = tcp_sendmsg.scrape()
        made = namespaces.call(namespace, sends.make, 1, PORT, join=cgroup)
        rise = tcp_sendmsg.scrape().since(before)
        if rise.sum(CALLS) == rise.sum(CALLS, **labels(cgroup)):
            break
    else:
        pytest.fail(f"others sent over TCP in each of {ATTEMPTS} runs: this host is too busy to count on")
    for family, counted in made.items():
        expected = Counter(float(max(1, 1 << (size - 1).bit_length()) if size else 1) for size in counted["sizes"])
        assert rise.buckets(SIZES, family=family) == expected, family
        assert rise.sum(f"{SIZES}_sum", family=family) == sum(counted["sizes"]), family


def test_sendfile_counts_as_tcp_sendmsg_where_the_kernel_goes_that_way(
    tcp_sendmsg: Running, namespace: str, cgroup: Path
) -> None:
    before = tcp_sendmsg.scrape()
    namespaces.call(namespace, sends.send_file, COUNT, PORT, 5000, join=cgroup)
    rise = tcp_sendmsg.scrape().since(before)
    through_sendmsg = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 5)
    assert rise.sum(BYTES, **labels(cgroup)) == (COUNT * 5000 if through_sendmsg else 0)
